package reload_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// turns makes configurations for a run of changes of which a given number, evenly spread, cost a reload: a "frontend web"
// on an address, a "listen tcp" on a second one, each with servers that come, go, move, drain and pause.
func turns(web, tcp string, https, lines []string, changes, reloads int) func(i int) haproxy.Files {
	servers := func(targets []string, i int) string {
		var b strings.Builder
		for s := range 4 {
			weight, state := 1+(i+s)%9, ""
			switch { // one always stays
			case s > 0 && (i+s)%4 == 0:
				continue
			case s > 0 && (i+s)%5 == 0:
				weight = 0
			case s > 0 && (i+s)%7 == 0:
				state = " disabled"
			}
			fmt.Fprintf(&b, " server s%d %s id %d weight %d%s\n", s, targets[(i/3+s)%len(targets)], 100+s, weight, state)
		}
		return b.String()
	}
	return func(i int) haproxy.Files {
		return cfg("global\n hard-stop-after 30m\n" + head + "option idle-close-on-response\nfrontend web\n bind " + web +
			"\n http-response set-header x-turn " + fmt.Sprint(i*reloads/(changes+reloads)) +
			"\n default_backend b\nbackend b\n balance roundrobin\n" + servers(https, i) +
			"listen tcp\n mode tcp\n bind " + tcp + "\n balance roundrobin\n" + servers(lines, i+2))
	}
}

// The promise that nothing is lost, with all that there is at once: every kind of client and of change. In the second half
// reloads have to wait, and changes that come meanwhile are applied in part. NUNCIO_LOAD_CHANGES and NUNCIO_LOAD_RELOADS make it
// longer, NUNCIO_LOAD_RATE bounds the changes a second.
func TestChangesAndReloadsUnderLoadLoseNothing(t *testing.T) {
	changes, reloads, rate := envInt("NUNCIO_LOAD_CHANGES", 160), envInt("NUNCIO_LOAD_RELOADS", 16), envInt("NUNCIO_LOAD_RATE", 0)
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		web, tcp := testkit.FreeAddr(t), testkit.FreeAddr(t)
		conf := turns(web, tcp, []string{backend(t), backend(t), backend(t)}, []string{echo(t), echo(t), echo(t)}, changes, reloads)
		r := start(t, h, reload.Options{Keep: 3})
		r.applied(conf(0), 1)
		r.serves(web, "pong")
		c := newClients()
		c.enter(web, tcp)
		began, modes, reasons, parts, all := time.Now(), map[reload.Mode]int{}, map[string]int{}, 0, changes+reloads
		for i := range all {
			if rate > 0 {
				time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(rate))))
			}
			// For half of its turn a change of the frontend waits.
			waits := i > all/2 && i < all-1 && (i+1)*reloads%all < all/2
			a, err := r.Apply(t.Context(), reload.Desired{Files: conf(i + 1), Revision: int64(i + 2), NoReload: waits})
			switch {
			case errors.Is(err, reload.ErrReloadNeeded) && a.Outcome == reload.Runtime:
				parts++
			case err != nil:
				t.Fatalf("%+v, %v", a, err)
			case a.Mode == reload.ModeReload:
				reasons[a.Reason]++
			}
			modes[a.Mode]++
		}
		took := time.Since(began)
		if reloads > 0 {
			// The sessions that there were before the first reload are still with the worker that took them.
			r.until("an old worker", func(s reload.Status) bool { return s.OldWorkers > 0 })
		}
		lost, done, summary := c.leave()
		t.Logf("%d exchanges during %v (%d in part) in %v\n%sreloads because of %v", done, modes, parts, took.Round(time.Second), summary, reasons)
		if lost != 0 || done < 1000 {
			t.Errorf("%d of %d exchanges were lost", lost, done)
		}
		// A change that commands could not make in time became a reload: the machine may be that slow, if it seldom is.
		if modes[reload.ModeRuntime] < changes*9/10 || modes[reload.ModeReload] < reloads || modes[reload.ModeRuntime]+modes[reload.ModeReload] != all {
			t.Errorf("%v; want %d changes without a reload and %d with one", modes, changes, reloads)
		}
		if parts < changes/10 {
			t.Errorf("%d changes were applied in part, want a quarter", parts)
		}
		compareWithFresh(t, h, r, func(addr string) string {
			text := string(conf(all).Config())
			if addr != web {
				text = strings.NewReplacer(web, addr, tcp, testkit.FreeAddr(t)).Replace(text)
			}
			return text
		}, web)
		if s := r.Status(); s.Restarts != 0 {
			t.Errorf("haproxy exited %d times", s.Restarts)
		}
	})
}

// The negative control: without the option that the shipped templates carry, the same clients do lose requests.
func TestReloadsWithoutIdleCloseOnResponseLoseRequests(t *testing.T) {
	addr, backend := testkit.FreeAddr(t), backend(t)
	conf := func(i int) haproxy.Files {
		return cfg(head + "listen l\n bind " + addr + "\n http-response set-header x-turn " + fmt.Sprint(i) + "\n server s " + backend + "\n")
	}
	r := start(t, testkit.OneHAProxy(t), reload.Options{})
	r.applied(conf(0), 1)
	c := newClients()
	c.enter(addr, "")
	for i := range 10 {
		r.applied(conf(i+1), int64(i+2))
	}
	lost, done, summary := c.leave()
	t.Logf("%d of %d requests lost in 10 reloads\n%s", lost, done, summary)
	if lost == 0 {
		t.Error("nothing was lost: the load test cannot see a loss")
	}
}
