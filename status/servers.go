package status

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"nuncio/internal/haproxy"
)

// serverHealth asks HAProxy how its servers are, only while a client wants to know and at most once a second: the answer
// for 10,000 servers has megabytes, and a worker writes it between requests.
type serverHealth struct {
	socket haproxy.Socket

	mu   sync.Mutex
	next time.Time
	last *servers
}

// servers is one answer of HAProxy, to be looked up.
type servers struct {
	err    error
	byName map[[2]string][]haproxy.ServerStat // by backend and server
	byAddr map[string][]haproxy.ServerStat
	digest uint64 // of everything that is shown, in any order the same
}

const (
	minPollPause  = time.Second
	healthTimeout = 5 * time.Second
)

// get returns the last answer, or a new one if that is due. Concurrent callers share one question.
func (h *serverHealth) get(ctx context.Context) *servers {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last != nil && time.Now().Before(h.next) {
		return h.last
	}
	began := time.Now()
	h.last = h.ask(ctx)
	// Asking takes a twentieth of the time at most, however many servers there are.
	h.next = time.Now().Add(max(minPollPause, 20*time.Since(began)))
	return h.last
}

func (h *serverHealth) ask(ctx context.Context) *servers {
	s := &servers{byName: map[[2]string][]haproxy.ServerStat{}, byAddr: map[string][]haproxy.ServerStat{}}
	// The client that asks may disconnect; the answer is for all of them.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), healthTimeout)
	defer cancel()
	var all []haproxy.ServerStat
	reply, err := h.socket.Exec(ctx, haproxy.ShowStat)
	if err == nil {
		all, err = haproxy.ParseStat(reply.Text)
	}
	if err != nil {
		s.err = err
		return s
	}
	for _, server := range all {
		name := [2]string{server.Backend, server.Name}
		if server.Checking {
			server.CheckInfo = h.last.previousCheck(server)
		}
		s.byName[name] = append(s.byName[name], server)
		address := canonical(server.Addr)
		s.byAddr[address] = append(s.byAddr[address], server)
		one := fnv.New64a()
		fmt.Fprintln(one, server.Backend, server.Name, server.Status, server.Weight, server.Addr, server.Check, server.CheckInfo)
		s.digest += one.Sum64()
	}
	return s
}

// previousCheck returns what a server's last check found: HAProxy clears it when the next check begins, so an older answer
// may still have it.
func (s *servers) previousCheck(now haproxy.ServerStat) string {
	if s != nil {
		for _, before := range s.byName[[2]string{now.Backend, now.Name}] {
			if before.Check == now.Check {
				return before.CheckInfo
			}
		}
	}
	return now.CheckInfo
}
