package status_test

import (
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/render"
	"nuncio/status"
)

// explain asks for one instance, as "nuncio status WORD" does.
func explain(t *testing.T, w *env, query string) status.InstanceView {
	t.Helper()
	page := get[status.Page](t, w.URL+"/v1/services?q="+query)
	if page.Found != 1 {
		t.Fatalf("services?q=%s: %d found, want 1", query, page.Found)
	}
	return page.Services[0].Instances[0]
}

// run says that HAProxy runs these files as generation 2, and that they are desired too.
func (e *env) run(t *testing.T, content map[string][]byte) {
	t.Helper()
	f, err := haproxy.NewFiles(content)
	if err != nil {
		t.Fatal(err)
	}
	e.change(func(s *sources) {
		s.generations[2], s.desired = f, f
		s.applier.AppliedDigest = f.Digest()
	})
}

func TestWhyNamesABackendThatNothingLeadsTo(t *testing.T) {
	const backends = "backend alpha\n\tserver a 127.0.0.3:3\nbackend beta\n\tserver b 127.0.0.4:4\n"
	w := newEnv(t, runHAProxy(t, backends))
	w.put("alpha/a", "127.0.0.3:3", "beta/b", "127.0.0.4:4")
	config := func(frontend, routes string) map[string][]byte {
		return map[string][]byte{haproxy.ConfigFile: []byte(frontend + backends), "maps/routes.map": []byte(routes)}
	}
	for _, c := range []struct {
		name        string
		files       map[string][]byte
		alpha, beta string // the reason for each; empty for none
	}{
		{"both have none", config("frontend f\n\tbind :80\n", ""), "leads to backend alpha: has the service http.host", "leads to backend beta: has the service http.host"},
		{
			"the other one has the same", config(shippedRules, "www.example.com/ alpha\n"), "",
			"leads to backend beta: http.host: www.example.com/ leads to service alpha; tcp.port: it is taken",
		},
		{"both have one", config(shippedRules, "www.example.com/ alpha\n/b/ beta\n"), "", ""},
		{"the files do not show it", config("frontend f\n\tuse_backend %[req.hdr(x)]\n", ""), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.run(t, c.files)
			w.change(func(s *sources) {
				s.reconciler.Unmet = nil
				if strings.Contains(c.beta, "is taken") {
					s.reconciler.Unmet = []render.Unmet{
						{Service: "alpha", Key: "http.host", Reason: "another service's"},
						{Service: "beta", Key: "balance", Reason: "no reason for this"},
						{Service: "beta", Key: "http.host", Reason: "www.example.com/ leads to service alpha"},
						{Service: "beta", Key: "tcp.port", Reason: "it is taken"},
					}
				}
			})
			for query, want := range map[string]string{"alpha/a": c.alpha, "beta/b": c.beta} {
				if v := explain(t, w, query); v.Health != "unchecked" || !strings.Contains(v.Why, want) || (want == "") != (v.Why == "") {
					t.Errorf("%s: got health %q and %q, want unchecked and %q", query, v.Health, v.Why, want)
				}
			}
		})
	}
	// HAProxy runs something other than what is desired: the files are those of the generation; without them nothing is claimed.
	w.run(t, config("frontend f\n\tdefault_backend alpha\n", ""))
	newer := files(t, "# newer\n")
	w.change(func(s *sources) { s.desired, s.reconciler.Frozen = newer, &reconcile.Frozen{Generation: 2} })
	if v := explain(t, w, "beta/b"); !strings.Contains(v.Why, "leads to backend beta; generation 2 is frozen") {
		t.Errorf("beta/b while frozen: got %q, want the backend and the generation", v.Why)
	}
	w.change(func(s *sources) { s.applier.AppliedDigest = "older" })
	if v := explain(t, w, "beta/b"); v.Why != "" {
		t.Errorf("beta/b with unknown files: got %q, want nothing", v.Why)
	}
}

// TestWhyNamesTheAddressThatHAProxyStillHas moves records while HAProxy goes on with what it has.
func TestWhyNamesTheAddressThatHAProxyStillHas(t *testing.T) {
	const text = "frontend f\n\tuse_backend other if { path /other }\n\tdefault_backend web\nbackend web\n\tserver a 127.0.0.3:3\n\tserver n localhost:3\n\tserver six [::1]:6\nbackend other\n\tserver x 127.0.0.9:9\nlisten all\n\tserver n-1 127.0.0.8:8\n"
	_, backends, _ := strings.Cut(text, "default_backend web\n")
	w := newEnv(t, runHAProxy(t, backends))
	w.run(t, map[string][]byte{haproxy.ConfigFile: []byte(text)})
	w.put("web/a", "127.0.0.3:3", "web/n", "localhost:3", "web/six", "[::1]:6", "other/x", "192.0.2.9:9")
	newer := files(t, "# newer\n")
	frozen := func(s *sources) { s.desired, s.reconciler.Frozen = newer, &reconcile.Frozen{Generation: 2} }
	free := func(s *sources) {
		s.desired, s.applier.LastError, s.reconciler.RenderError, s.reconciler.Frozen = s.generations[2], "", "", nil
	}
	for _, c := range []struct {
		name, query, record string
		change              func(s *sources)
		health, why         string
	}{
		{"frozen, not moved", "web/a", "127.0.0.3:3", frozen, "unchecked", ""},
		{"frozen, moved", "web/a", "192.0.2.77:9999", frozen, "absent", "HAProxy still has 127.0.0.3:3 for it: generation 2 is frozen; nuncio resume ends that"},
		{"frozen, moved to where another one is", "web/a", "127.0.0.9:9", frozen, "absent", "HAProxy still has 127.0.0.3:3 for it: generation 2 is frozen"},
		{"frozen, new, where one of another service was", "new/n", "127.0.0.9:9", frozen, "absent", "HAProxy has its address for other/x only: generation 2 is frozen"},
		{"frozen, in a backend of another name", "x-service/n1", "127.0.0.8:8", frozen, "unchecked", ""},
		{"new, where one of another service is", "new/n", "127.0.0.9:9", free, "unchecked", ""},
		{"frozen, a name not moved", "web/n", "localhost:3", frozen, "unchecked", ""},
		{"frozen, a name moved", "web/n", "elsewhere.example.com:3", frozen, "absent", "HAProxy still has localhost:3 for it: generation 2 is frozen"},
		{"frozen, an IPv6 address not moved", "web/six", "[::1]:6", frozen, "unchecked", ""},
		{
			"refused, moved", "web/a", "192.0.2.77:9999", func(s *sources) { s.desired, s.applier.LastError = newer, "haproxy -c says no\nand more" },
			"absent", "HAProxy still has 127.0.0.3:3 for it: the newest configuration could not be applied: haproxy -c says no",
		},
		{
			"not rendered, moved", "web/a", "192.0.2.77:9999", func(s *sources) { s.reconciler.RenderError = "x.tmpl:1: no" },
			"absent", "HAProxy still has 127.0.0.3:3 for it: the templates cannot render the newest records: x.tmpl:1: no",
		},
		{"templates that chose another address", "web/a", "192.0.2.77:9999", free, "unchecked", ""},
		{"moved and on its way", "web/a", "192.0.2.77:9999", func(s *sources) { s.desired = newer }, "unchecked", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.change(free)
			w.change(c.change)
			w.put(c.query, c.record)
			if v := explain(t, w, c.query); v.Health != c.health || !strings.HasPrefix(v.Why, c.why) || (c.why == "") != (v.Why == "") {
				t.Errorf("%s at %s: got health %q and %q, want %q and %q", c.query, c.record, v.Health, v.Why, c.health, c.why)
			}
			if v := explain(t, w, c.query+"+"+c.health); v.Health != c.health {
				t.Errorf("a search finds %s by health %s, shown is %q", c.query, c.health, v.Health)
			}
		})
	}
}

func TestWhyNamesTheTemplatesThatAreNotInUse(t *testing.T) {
	w := threeServices(t)
	w.put("web/new", `{"host":"192.0.2.100","port":1,"meta":{"colour":"bad word"}}`)
	w.change(func(s *sources) { s.reconciler.TemplatesError = "x.tmpl:5: no\nmore" })
	if v := explain(t, w, "web/new"); !strings.HasSuffix(v.Why, "the newest ones are not in use: x.tmpl:5: no") {
		t.Errorf("while the newest templates do not work: got %q, want that", v.Why)
	}
	// A line that was dropped because of another record's value explains nothing, though the value has the letters of its name.
	dropped := render.Dropped{Template: "x.tmpl:1:2", Value: `"a new value"`, Reason: "no word"}
	w.change(func(s *sources) {
		s.reconciler.TemplatesError, s.reconciler.Dropped = "", []render.Dropped{dropped}
	})
	if v := explain(t, w, "web/new"); strings.Contains(v.Why, "no word") {
		t.Errorf("with a line of another record dropped: got %q", v.Why)
	}
	dropped.Value = `"bad word"`
	w.change(func(s *sources) { s.reconciler.Dropped = []render.Dropped{dropped} })
	if v := explain(t, w, "web/new"); !strings.Contains(v.Why, "x.tmpl:1:2 dropped its line: no word") {
		t.Errorf("with its own line dropped: got %q, want the template's place", v.Why)
	}
}

func TestWhyNamesAHostThatDoesNotResolve(t *testing.T) {
	w := newEnv(t, runHAProxy(t, "backend web\n\tserver a no-such-host.invalid:80 init-addr none\n\tserver b 127.0.0.3:3 disabled\n"))
	w.put("web/a", "no-such-host.invalid:80", "web/b", "127.0.0.3:3")
	for query, want := range map[string]string{"web/a": "HAProxy cannot resolve its host name no-such-host.invalid", "web/b": "it was set in HAProxy by hand"} {
		if v := explain(t, w, query); v.Health != "maint" || !strings.Contains(v.Why, want) {
			t.Errorf("%s: got health %q and %q, want maint and %q", query, v.Health, v.Why, want)
		}
	}
}

func TestThePageDoesNotAnswerForASilentEtcd(t *testing.T) {
	w := newEnv(t, nil)
	w.change(func(s *sources) { s.store.Err = "connection refused" })
	if _, _, body := fetch(t, w.URL+"/"); !strings.Contains(body, "Not known: etcd does not answer") || strings.Contains(body, "No: behind") {
		t.Errorf("the page while etcd is silent: want that it is not known, in\n%s", body)
	}
}

// TestTheRunningFilesAreReadOncePerGeneration: those of 10,000 instances have a megabyte, and a page asks every second.
func TestTheRunningFilesAreReadOncePerGeneration(t *testing.T) {
	w := newEnv(t, nil)
	reads := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.reads
	}
	w.put("web/a", "127.0.0.3:3", "web/b", "127.0.0.3:4")
	w.run(t, map[string][]byte{haproxy.ConfigFile: []byte("frontend f\n\tdefault_backend web\n")})
	for _, newest := range []string{"# newer\n", "# newer still\n"} { // what is desired changes, what runs stays
		desired := files(t, newest)
		w.change(func(s *sources) { s.desired, s.reconciler.Frozen = desired, &reconcile.Frozen{Generation: 2} })
		for range 3 {
			explain(t, w, "web/a")
		}
	}
	if n := reads(); n != 1 {
		t.Errorf("the generation that runs was read %d times, want once", n)
	}
	// One that is not to be had is not looked for again with each request.
	w.change(func(s *sources) { s.applier.AppliedDigest = "gone" })
	for range 3 {
		explain(t, w, "web/a")
	}
	if n := reads(); n != 2 {
		t.Errorf("with one that is not to be had, generations were read %d times, want twice", n)
	}
	w.run(t, map[string][]byte{haproxy.ConfigFile: []byte("frontend f\n\tdefault_backend other\n")})
	newest := files(t, "# newest\n")
	w.change(func(s *sources) { s.desired = newest })
	explain(t, w, "web/a")
	if n := reads(); n != 3 {
		t.Errorf("after another generation: %d reads, want a third one", n)
	}
}
