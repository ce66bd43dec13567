package status_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/status"
	"nuncio/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHealthAnswers(t *testing.T) {
	e := newEnv(t, nil)
	for _, c := range []struct {
		name   string
		change func(*sources)
		method string
		path   string
		code   int
		body   string
	}{
		{"ready", func(*sources) {}, "GET", "/readyz", 200, "running\n"},
		{
			"not ready says why", func(s *sources) {
				s.applier = reload.Status{State: reload.Waiting}
				s.store = watch.StoreStatus{}
			}, "GET", "/readyz", 503, "waiting\netcd: no answer yet: still connecting\n",
		},
		{
			"degraded may still be ready", func(s *sources) {
				s.applier.State, s.applier.LastError = reload.Degraded, "rejected"
			}, "GET", "/readyz", 200, "degraded\nhaproxy: rejected\n",
		},
		{"waiting is healthy: a restart would not help", func(s *sources) { s.applier.State = reload.Waiting }, "GET", "/healthz", 200, "waiting\n"},
		{"stopped is not healthy", func(s *sources) { s.applier.State = reload.Stopped }, "GET", "/healthz", 503, "stopped\n"},
		{"metrics", func(*sources) {}, "GET", "/metrics", 200, "nuncio_ready 1\n"},
		{"metrics while not ready", func(s *sources) { s.applier.Ready = false }, "GET", "/metrics", 200, "nuncio_ready 0\n"},
		{"read-only", func(*sources) {}, "POST", "/readyz", 405, ""},
		{"no other page", func(*sources) {}, "GET", "/debug/pprof/", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := e.get()
			e.change(c.change)
			defer e.change(func(s *sources) { *s = before })
			req, err := http.NewRequestWithContext(t.Context(), c.method, e.URL+c.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.code || !strings.Contains(string(body), c.body) {
				t.Errorf("%s %s: got %d %q, want %d with %q", c.method, c.path, resp.StatusCode, body, c.code, c.body)
			}
		})
	}
}

func TestStateAndReasons(t *testing.T) {
	now := time.Now()
	hold := &reconcile.Hold{Since: now, Until: now.Add(time.Minute), Instances: 3, Remaining: 1, Services: []string{"a", "b"}}
	for _, c := range []struct {
		name   string
		change func(*sources)
		state  reload.State
		reason string // the beginning of one reason; empty for none at all
		inStep bool
	}{
		{"all is well", func(*sources) {}, "running", "", true},
		{"etcd is silent", func(s *sources) { s.store.Err, s.store.Hint = "refused", "try TLS" }, "running", "etcd: last answer 0s ago: refused (try TLS)", false},
		{"etcd has never answered", func(s *sources) { s.store.Synced, s.store.Err = false, "refused" }, "running", "etcd: no answer yet: refused", false},
		{"new templates do not work", func(s *sources) { s.reconciler.TemplatesError = "x.tmpl:1" }, "degraded", "templates: x.tmpl:1", false},
		{"records cannot be rendered", func(s *sources) { s.reconciler.RenderError = "x.tmpl:1" }, "degraded", "rendering: x.tmpl:1", false},
		{"an apply failed", func(s *sources) { s.applier.State, s.applier.LastError = "degraded", "no" }, "degraded", "haproxy: no", true},
		{"files were rejected", func(s *sources) { s.reconciler.ApplyError = "no" }, "degraded", "haproxy: no", true},
		{"rolled back", func(s *sources) { s.reconciler.RolledBack = &reconcile.RolledBack{TemplateSet: 3} }, "rolled_back", "rolled back: an operator went back to template set 3", false},
		{
			"rolled back, and records cannot be rendered", func(s *sources) {
				s.reconciler.RolledBack, s.reconciler.RenderError = &reconcile.RolledBack{TemplateSet: 3}, "x.tmpl:1"
			}, "degraded", "rendering: x.tmpl:1", false,
		},
		{"frozen", func(s *sources) { s.reconciler.Frozen = &reconcile.Frozen{Generation: 3} }, "frozen", "frozen: an operator froze generation 3", false},
		{"instances are held", func(s *sources) { s.reconciler.Hold = hold }, "holding", "holding: 3 instances of 2 services", false},
		{"held, with templates that do not work", func(s *sources) { s.reconciler.Hold, s.reconciler.TemplatesError = hold, "x" }, "degraded", "templates: x", false},
		{"draining says more than holding", func(s *sources) { s.reconciler.Hold, s.applier.State = hold, reload.Draining }, "draining", "holding:", false},
		{"something newer is desired", func(s *sources) { s.desired = files(t, "# newer\n") }, "running", "", false},
		{"nothing is desired yet", func(s *sources) { s.known, s.applier.Ready, s.applier.State = false, false, "waiting" }, "waiting", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newEnv(t, nil)
			e.change(c.change)
			o := get[status.Overview](t, e.URL+"/v1/status")
			all := strings.Join(o.Reasons, "\n")
			if o.State != c.state || o.InStep != c.inStep || !strings.Contains("\n"+all, "\n"+c.reason) || (c.reason == "") != (all == "") {
				t.Errorf("got state %q, in step %v, reasons %q; want %q, %v, %q", o.State, o.InStep, o.Reasons, c.state, c.inStep, c.reason)
			}
			if h := e.Server.Health(); h.State != o.State || h.Ready != o.Ready {
				t.Errorf("Health: %+v, want the state and readiness of /v1/status: %q, %v", h, o.State, o.Ready)
			}
		})
	}
}

// TestALostListenerIsOpenedAgain takes the admin listener away, as an exhausted file table does: HAProxy must not be
// affected, and the page must come back.
func TestALostListenerIsOpenedAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := newEnv(t, nil)
	server := status.New(e.options(nil))
	serve(t, server, l)
	l.Close()
	testkit.Eventually(t, 10*time.Second, func() error {
		if all := strings.Join(server.Health().Reasons, "\n"); !strings.Contains(all, "admin listener: ") {
			return errors.New("no reason names the listener: " + all)
		}
		return nil
	})
	testkit.Eventually(t, 20*time.Second, func() error {
		resp, err := http.Get("http://" + l.Addr().String() + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	if all := server.Health().Reasons; len(all) > 0 {
		t.Errorf("once the listener is back: %q", all)
	}
}

// A document that asked twice could show the state of one moment beside the error of a later one.
func TestEachDocumentIsOfOneMoment(t *testing.T) {
	e := newEnv(t, nil)
	for _, path := range []string{"/", "/healthz", "/readyz", "/v1/status", "/v1/services", "/v1/diff"} {
		before := e.asked
		fetch(t, e.URL+path)
		if n := e.asked - before; n != 1 {
			t.Errorf("%s asked for the applier's status %d times, want once", path, n)
		}
	}
}
