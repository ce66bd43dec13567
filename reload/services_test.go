package reload_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// services are a configuration in which each service is a backend that a map leads to.
type services struct {
	web, tcp  string // where HAProxy listens
	https     string // the server of the one that is always there
	echo      string
	at        map[int]string // servers of those that come and go
	leastconn map[int]bool
}

func (c *services) files(web string) haproxy.Files {
	var backends, routes strings.Builder
	for i := range 40 {
		if at, ok := c.at[i]; ok {
			from := "http-roundrobin"
			if c.leastconn[i] {
				from = "http-leastconn"
			}
			fmt.Fprintf(&backends, "backend s%d from %s\n server a %s id %d check\n", i, from, at, 1000+i)
			fmt.Fprintf(&routes, "s%d s%d\n", i, i)
		}
	}
	return files(map[string]string{"haproxy.cfg": strings.Replace(head, "defaults", "defaults common", 1) + `    option idle-close-on-response
    default-server inter 1s
    timeout tunnel 1h
defaults http-roundrobin from common
    mode http
    balance roundrobin
defaults http-leastconn from http-roundrobin
    balance leastconn
defaults from common
frontend web
    bind ` + web + `
    use_backend %[req.hdr(host),map(services.map,always)]
backend always from http-roundrobin
    server a ` + c.https + `
listen tcp
    mode tcp
    bind ` + strings.Replace(c.tcp, c.web, web, 1) + `
    server a ` + c.echo + `
` + backends.String(), "services.map": "# routes\n" + routes.String()})
}

// ask requests the page of a service on a connection of its own.
func (c *services) ask(i int) error {
	client := http.Client{Timeout: clientTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	req, err := http.NewRequest(http.MethodPost, "http://"+c.web+"/", strings.NewReader("hello"))
	if err != nil {
		return err
	}
	req.Host = fmt.Sprintf("s%d", i)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	return checkPong(resp)
}

// Services come, move, go and come back under load, some while connections to them are open. HAProxy 3.4 takes all of it without
// a reload, nothing is lost, and what it runs in the end is what the files say.
func TestServicesComeAndGoWithoutAReload(t *testing.T) {
	t.Parallel()
	changes := envInt("NUNCIO_SERVICES_CHANGES", 200)
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		if !h.AtLeast("3.4") {
			t.Skip("this HAProxy takes no new backends without a reload")
		}
		places := []string{backend(t), backend(t)}
		c := &services{web: testkit.FreeAddr(t), tcp: testkit.FreeAddr(t), https: places[0], echo: echo(t), at: map[int]string{}, leastconn: map[int]bool{}}
		r := start(t, h, reload.Options{Keep: 3})
		first := r.applied(c.files(c.web), 1)
		clients := newClients()
		clients.enter(c.web, c.tcp)
		for i := range 25 { // whatever answers, the service or the one that is always there, it must be whole
			clients.http1("services", c.web, fmt.Sprintf("POST / HTTP/1.1\r\nHost: s%d\r\nContent-Length: 5\r\n\r\nhello", i), 5*time.Millisecond)
		}
		var kept []*lineConn
		for i := range changes {
			n := i % 25
			switch at, there := c.at[n]; {
			case !there:
				c.at[n] = places[i%2]
				c.leastconn[n] = n%3 == 0
			case i%3 == 0 && at == places[0]:
				c.at[n] = places[1]
			case i%3 == 0:
				c.at[n] = places[0]
			default:
				delete(c.at, n)
			}
			if a := last(r.applied(c.files(c.web), int64(i+2))); a.Mode != reload.ModeRuntime {
				t.Fatalf("change %d: %+v", i, a)
			}
			for _, known := range []int{n, (n + 7) % 25} {
				if err := c.ask(known); err != nil { // without a route, the one that is always there answers
					t.Fatalf("change %d: service %d: %v", i, known, err)
				}
			}
			if _, there := c.at[n]; there && i%20 == 0 {
				conn, err := dialLines(c.web)
				if err == nil {
					err = conn.upgrade(strings.Replace(websocket, "Host: x", fmt.Sprintf("Host: s%d", n), 1))
				}
				if err != nil {
					t.Fatal(err)
				}
				kept = append(kept, conn)
			}
		}
		for i, conn := range kept {
			if err := conn.echo("still here"); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
			conn.Close()
		}
		lost, done, summary := clients.leave()
		t.Logf("%d changes, %d exchanges\n%s", changes, done, summary)
		if lost != 0 || done < 500 {
			t.Errorf("%d of %d exchanges were lost", lost, done)
		}
		if s := r.Status(); s.WorkerPid != first.WorkerPid || s.Restarts != 0 {
			t.Errorf("worker %d after %d", s.WorkerPid, first.WorkerPid)
		}
		compareWithFresh(t, h, r, func(addr string) string {
			text := string(c.files(addr).Config())
			if addr != c.web { // of the fresh one, which has the same map
				text = strings.NewReplacer(c.tcp, testkit.FreeAddr(t), "services.map", filepath.Join(r.dir, "current/services.map")).Replace(text)
			}
			return text
		}, c.web)
		// What nothing uses any more is deleted.
		r.until("nothing to leave", func(s reload.Status) bool { return s.Leaving == 0 })
		var want []string
		for i := range 40 {
			if _, ok := c.at[i]; ok {
				want = append(want, fmt.Sprintf("s%d", i))
			}
		}
		shown := strings.Fields(r.show("show backend"))
		if len(shown) != len(want)+4 { // "#", "name", always, tcp
			t.Errorf("haproxy has %q, want %q", shown, want)
		}
	})
}

// A worker that does not take the commands for a backend is reloaded, and so is one of which nuncio is told that it did not.
func TestABackendThatHAProxyHasAlreadyNeedsAReload(t *testing.T) {
	t.Parallel()
	for _, h := range testkit.HAProxies(t) {
		if !h.AtLeast("3.4") {
			continue
		}
		place := backend(t)
		c := &services{web: testkit.FreeAddr(t), tcp: testkit.FreeAddr(t), https: place, echo: echo(t), at: map[int]string{}}
		r := start(t, h, reload.Options{})
		r.applied(c.files(c.web), 1)
		r.show("add backend s1 from http-roundrobin mode http")
		c.at[1] = place
		if a := last(r.applied(c.files(c.web), 2)); a.Mode != reload.ModeReload || !strings.Contains(a.Reason, "name is already used") {
			t.Errorf("%+v", a)
		}
		if err := c.ask(1); err != nil {
			t.Error(err)
		}
		delete(c.at, 1)
		if a, err := r.Apply(t.Context(), reload.Desired{Files: c.files(c.web), Revision: 3, NoReload: true}); err != nil || a.Mode != reload.ModeRuntime {
			t.Errorf("%+v, %v", a, err)
		}
	}
}

// A backend that leaves while nuncio is replaced is deleted by the next one, and comes back without a reload until then.
func TestTheNextNuncioKnowsTheBackendsThatLeave(t *testing.T) {
	t.Parallel()
	for _, h := range testkit.HAProxies(t) {
		if !h.AtLeast("3.4") {
			continue
		}
		place := backend(t)
		c := &services{web: testkit.FreeAddr(t), tcp: testkit.FreeAddr(t), https: place, echo: echo(t), at: map[int]string{1: place, 2: place}}
		r := start(t, h, reload.Options{})
		first := r.applied(c.files(c.web), 1)
		delete(c.at, 1)
		delete(c.at, 2)
		r.applied(c.files(c.web), 2)
		r.handOver()
		r = r.next(h)
		if s := r.until("an adopted haproxy", func(s reload.Status) bool { return s.MasterPid != 0 }); s.Leaving != 4 {
			t.Errorf("%d are leaving, want two backends and their servers", s.Leaving)
		}
		c.at[1] = place
		if a := last(r.applied(c.files(c.web), 3)); a.Mode != reload.ModeRuntime {
			t.Errorf("%+v", a)
		}
		if err := c.ask(1); err != nil {
			t.Error(err)
		}
		if s := r.until("nothing leaving", func(s reload.Status) bool { return s.Leaving == 0 }); s.WorkerPid != first.WorkerPid {
			t.Error("haproxy was reloaded")
		}
		if shown := strings.Fields(r.show("show backend")); !slices.Contains(shown, "s1") || slices.Contains(shown, "s2") {
			t.Errorf("haproxy has %q", shown)
		}
	}
}
