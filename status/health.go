package status

import (
	"context"
	"sync"
	"time"

	"nuncio/internal/haproxy"
)

// health asks HAProxy how its servers are, only when somebody wants to know and at most once a second: the answer
// for 10,000 servers has megabytes, and a worker writes it between requests.
type health struct {
	socket *haproxy.Socket

	mu   sync.Mutex
	next time.Time
	last *servers
}

// servers is one answer of HAProxy, to be looked up.
type servers struct {
	err    error
	byName map[[2]string][]haproxy.ServerStat // by backend and server
	byAddr map[string][]haproxy.ServerStat
}

const (
	leastPause  = time.Second
	healthLimit = 5 * time.Second
)

// get returns the last answer, or a fresh one when that is due. Those who come together share one question.
func (h *health) get(ctx context.Context) *servers {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil && time.Now().Before(h.next) {
		return h.last
	}
	began := time.Now()
	h.last = h.ask(ctx)
	// Asking takes a twentieth of the time at most, however many servers there are.
	h.next = time.Now().Add(max(leastPause, 20*time.Since(began)))
	return h.last
}

func (h *health) ask(ctx context.Context) *servers {
	s := &servers{byName: map[[2]string][]haproxy.ServerStat{}, byAddr: map[string][]haproxy.ServerStat{}}
	if h.socket == nil {
		s.err = errNoRuntime
		return s
	}
	// The one who asks may go away; the answer is for everybody.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthLimit)
	defer cancel()
	reply, err := h.socket.Exec(ctx, haproxy.ShowStat)
	if err != nil {
		s.err = err
		return s
	}
	all, err := haproxy.ParseStat(reply.Text)
	if err != nil {
		s.err = err
		return s
	}
	for _, server := range all {
		name := [2]string{server.Backend, server.Name}
		if server.Checking {
			server.CheckInfo = h.last.met(server)
		}
		s.byName[name] = append(s.byName[name], server)
		address := canonical(server.Addr)
		s.byAddr[address] = append(s.byAddr[address], server)
	}
	return s
}

// met is what a server's last check met, which this older answer may still tell.
func (s *servers) met(now haproxy.ServerStat) string {
	if s != nil {
		for _, before := range s.byName[[2]string{now.Backend, now.Name}] {
			if before.Check == now.Check {
				return before.CheckInfo
			}
		}
	}
	return now.CheckInfo
}
