package reload_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// sick is a server that accepts everything and answers health checks with 500.
type sick struct {
	*httptest.Server
	addr     string
	requests atomic.Int64 // but for health checks
}

func startSick(t *testing.T) *sick {
	s := &sick{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		s.requests.Add(1)
		fmt.Fprintln(w, "sick")
	}))
	t.Cleanup(s.Close)
	s.addr = s.Listener.Addr().String()
	return s
}

// checked is a configuration whose servers are checked at /health, a different one for each version.
func checked(addr string, version int, load string, servers ...string) haproxy.Files {
	return cfg(fmt.Sprintf(`%s
    option idle-close-on-response
    default-server inter 100ms fall 2 rise 2 init-addr last,libc,none
%s
frontend front
    bind %s
    http-response set-header Version %d
    default_backend web
backend web
    option httpchk GET /health
    server %s
`, head, load, addr, version, strings.Join(servers, "\n    server ")))
}

const fromStateFile = "    load-server-state-from-file global\n"

// state returns a server as the worker shows it.
func (r *harness) state(name string) haproxy.ServerState {
	r.t.Helper()
	all, err := haproxy.ParseServers(r.show("show servers state web"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range all {
		if s.Name == name {
			return s
		}
	}
	r.t.Fatalf("no server %s", name)
	return haproxy.ServerState{}
}

func (r *harness) untilDead(name string) {
	r.t.Helper()
	testkit.Eventually(r.t, 10*time.Second, func() error {
		if s := r.state(name); !s.Dead() {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// pester sends requests on new connections until the returned function is called, which returns how many there were.
func pester(t *testing.T, addr string) func() int {
	var wg sync.WaitGroup
	var n atomic.Int64
	quit := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-quit:
					return
				case <-time.After(time.Millisecond):
				}
				if _, err := get(addr); err != nil {
					t.Errorf("a request failed: %v", err)
				}
				n.Add(1)
			}
		})
	}
	leave := sync.OnceValue(func() int { close(quit); wg.Wait(); return int(n.Load()) })
	t.Cleanup(func() { leave() })
	return leave
}

func TestADeadServerGetsNothingAfterAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		well, added := testkit.StartWeb(t, "well", ""), startSick(t)
		bad := startSick(t)
		r := start(t, h, reload.Options{})
		servers := []string{line("a", well.Addr, 11, "weight 100 check"), line("b", bad.addr, 12, "weight 100 check")}
		r.applied(checked(addr, 1, fromStateFile, servers...), 1)
		servers = append(servers, line("c", added.addr, 13, "weight 50 check"))
		if s := r.applied(checked(addr, 1, fromStateFile, servers...), 2); last(s).Mode != reload.ModeRuntime {
			t.Fatalf("%+v", last(s))
		}
		r.untilDead("b")
		r.untilDead("c")
		before := bad.requests.Load() + added.requests.Load()
		leave := pester(t, addr)
		for i := range 3 {
			if s := r.applied(checked(addr, i+2, fromStateFile, servers...), int64(i+3)); last(s).Mode != reload.ModeReload {
				t.Fatalf("%+v", last(s))
			}
		}
		n := leave()
		if got := bad.requests.Load() + added.requests.Load() - before; got != 0 || n < 50 {
			t.Errorf("of %d requests %d went to servers that were dead", n, got)
		}
		if text, err := os.ReadFile(filepath.Join(r.dir, "run", "servers.state")); err != nil || string(text) != haproxy.EmptyStateFile {
			t.Errorf("the state file stays: %q, %v", text, err)
		}
	})
}

// A section without load-server-state-from-file, and a server whose address is a name, get commands after the reload.
func TestADeadServerIsDeadAfterAReloadOfAnyConfiguration(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		for _, load := range []string{"", fromStateFile} {
			addr, bad := testkit.FreeAddr(t), startSick(t)
			_, port, _ := net.SplitHostPort(bad.addr)
			r := start(t, h, reload.Options{})
			// The worker cannot find out again by itself within this test.
			servers := []string{line("b", bad.addr, 12, "check inter 1h fastinter 50ms downinter 1h"), line("name", "localhost:"+port, 13, "check inter 1h fastinter 50ms downinter 1h")}
			r.applied(checked(addr, 1, load, servers...), 1)
			r.untilDead("b")
			r.untilDead("name")
			r.applied(checked(addr, 2, load, servers...), 2)
			for _, name := range []string{"b", "name"} {
				if s := r.state(name); !s.Dead() {
					t.Errorf("after a reload, with %q: %+v", load, s)
				}
			}
		}
	})
}

// What is remembered of a server must not outlive the server, nor say anything but its health.
func TestOnlyHealthIsRemembered(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, bad := testkit.FreeAddr(t), startSick(t)
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		r := start(t, h, reload.Options{})
		r.applied(checked(addr, 1, fromStateFile, line("a", bad.addr, 11, "weight 100 check"), line("b", bad.addr, 12, "weight 100 check"),
			line("c", one.Addr, 13, "weight 100 check disabled")), 1)
		r.untilDead("a")
		r.untilDead("b")
		r.applied(checked(addr, 2, fromStateFile, line("a", two.Addr, 11, "weight 100 check"), line("b", bad.addr, 12, "weight 7 check"),
			line("c", one.Addr, 13, "weight 30 check")), 2)
		if a := r.state("a"); a.Address() != two.Addr || a.Dead() {
			t.Errorf("a server that moved: %+v; want it up at %s", a, two.Addr)
		}
		if b := r.state("b"); !b.Dead() || b.Weight != 7 || b.Address() != bad.addr {
			t.Errorf("a dead server with a new weight: %+v", b)
		}
		if c := r.state("c"); c.Out() || c.Dead() || c.Weight != 30 {
			t.Errorf("a server that was in maintenance: %+v", c)
		}
		r.serves(addr, "two\n")
	})
}

// Where servers start down, those that were up must be up.
func TestServersThatStartDownStayUpOverAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		if h.Version == "2.6" || h.Version == "3.0" {
			t.Skip("no init-state")
		}
		addr := testkit.FreeAddr(t)
		web, late := testkit.StartWeb(t, "web", ""), startSick(t)
		r := start(t, h, reload.Options{})
		a := line("a", web.Addr, 11, "check init-state down")
		r.applied(checked(addr, 1, fromStateFile, a), 1)
		r.serves(addr, "web\n")
		leave := pester(t, addr)
		r.applied(checked(addr, 2, fromStateFile, a), 2)
		r.applied(checked(addr, 2, fromStateFile, a, line("b", late.addr, 12, "check init-state down")), 3)
		time.Sleep(300 * time.Millisecond)
		r.applied(checked(addr, 3, fromStateFile, a, line("b", late.addr, 12, "check init-state down")), 4)
		leave()
		if n := late.requests.Load(); n > 0 {
			t.Errorf("a new server got %d requests before its first good check", n)
		}
		if got, err := get(addr); got != "web\n" {
			t.Error(errors.Join(err, fmt.Errorf("got %q", got)))
		}
	})
}
