package reload_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// A server that moves is left by clients that keep their connections and are never quiet, although it still answers where it was.
// HAProxy 2.6 goes on using a connection that was busy at the moment of the move: it looks for one of this server and does not
// compare the address. There, new connections get to the new place; docs/performance.md has the rest.
func TestAMovedServerIsLeftByBusyKeptConnections(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		webs := []*testkit.Web{testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")}
		r := start(t, h, reload.Options{})
		first := r.applied(pool(addr, line("a", webs[0].Addr, 11, "")), 1)
		r.serves(addr, "one\n")
		clients := make([]busyClient, 4)
		var wg sync.WaitGroup
		done := make(chan struct{})
		for i := range clients {
			wg.Go(func() { clients[i].run(addr, done) })
		}
		defer wg.Wait()
		defer close(done)
		for move := range 10 {
			to := (move + 1) % 2
			want := []string{"one\n", "two\n"}[to]
			if s := r.applied(pool(addr, line("a", webs[to].Addr, 11, "")), int64(move+2)); s.WorkerPid != first.WorkerPid {
				t.Fatalf("move %d: %+v; want no reload", move, last(s))
			}
			if strings.HasPrefix(h.Version, "2.") {
				r.serves(addr, want)
				continue
			}
			testkit.Eventually(t, 15*time.Second, func() error {
				for i := range clients {
					if got := clients[i].newest(); got != want {
						return fmt.Errorf("move %d: client %d gets %q, want %q", move, i, got, want)
					}
				}
				return nil
			})
		}
		for i := range clients {
			if n := clients[i].failed.Load(); n > 0 {
				t.Errorf("client %d: %d of %d requests failed", i, n, clients[i].all.Load())
			}
		}
	})
}

// A server that is down serves from its new place at once, as after a start. The next check, good or bad, is an hour away.
func TestAServerThatMovesWhileItIsDownServesAtOnce(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		web := testkit.StartWeb(t, "one", "")
		agent := "agent-check agent-inter 1h agent-port 1"
		r := start(t, h, reload.Options{})
		set := func(at, more string) haproxy.Files {
			return pool(addr, line("a", at, 11, "check inter 1h rise 9 "+agent+more), line("b", "127.0.0.1:1", 12, "weight 0"))
		}
		first := r.applied(set("127.0.0.1:1", ""), 1)
		for i, down := range [][]string{
			{"set server web/a health down"},
			{"set server web/a agent down"},
			{"set server web/a health down", "set server web/a agent down"},
		} {
			r.applied(set("127.0.0.1:1", ""), int64(3*i+2))
			for _, command := range down {
				r.show(command)
			}
			if got, err := get(addr); err != nil || !strings.Contains(got, "503") {
				t.Fatalf("%q: got %q, %v; want no server", down, got, err)
			}
			s := r.applied(set(web.Addr, ""), int64(3*i+3))
			if got, err := get(addr); err != nil || got != "one\n" || s.WorkerPid != first.WorkerPid {
				t.Errorf("%q: got %q, %v; %+v", down, got, err, last(s))
			}
		}
		// Maintenance is not touched by a move.
		r.applied(set("127.0.0.1:1", " disabled"), 100)
		r.applied(set(web.Addr, " disabled"), 101)
		if got, err := get(addr); err != nil || !strings.Contains(got, "503") {
			t.Errorf("in maintenance: got %q, %v", got, err)
		}
		r.applied(set("127.0.0.1:1", " disabled"), 102)
		s := r.applied(set(web.Addr, ""), 103)
		if got, err := get(addr); err != nil || got != "one\n" || s.WorkerPid != first.WorkerPid {
			t.Errorf("out of maintenance: got %q, %v; %+v", got, err, last(s))
		}
	})
}

// busyClient sends one request after the other on one connection.
type busyClient struct {
	answer      atomic.Value
	all, failed atomic.Int64
}

func (c *busyClient) run(addr string, done <-chan struct{}) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1}}
	for {
		select {
		case <-done:
			return
		default:
		}
		c.all.Add(1)
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			c.failed.Add(1)
			continue
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			c.failed.Add(1)
		}
		c.answer.Store(string(text))
	}
}

// newest is an answer to a request that began after the call.
func (c *busyClient) newest() string {
	for from := c.all.Load() + 2; c.all.Load() < from; {
		time.Sleep(time.Millisecond)
	}
	text, _ := c.answer.Load().(string)
	return text
}
