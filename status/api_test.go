package status_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/reconcile"
	"nuncio/status"
)

// fetch returns the answer to one GET.
func fetch(t *testing.T, address string) (code int, head http.Header, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func get[T any](t *testing.T, address string) T {
	t.Helper()
	code, _, body := fetch(t, address)
	var v T
	if err := json.Unmarshal([]byte(body), &v); err != nil || code != http.StatusOK {
		t.Fatalf("GET %s: %d, %v:\n%s", address, code, err, body)
	}
	return v
}

func TestServicesSayWhyThereIsNoTraffic(t *testing.T) {
	w := threeServices(t)
	why := func(query string) (health, why string) {
		page := get[status.Page](t, w.URL+"/v1/services?q="+query)
		if page.Found != 1 {
			t.Fatalf("services?q=%s: %d found, want 1", query, page.Found)
		}
		i := page.Services[0].Instances[0]
		return i.Health, i.Why
	}
	w.put("web/zero", `{"host":"127.0.0.7","port":7,"weight":0}`, "web/leaving", `{"host":"127.0.0.4","port":4,"state":"drain"}`,
		"web/stopped", `{"host":"192.0.2.99","port":1,"state":"drain","meta":{"operator":"drain"}}`,
		"web/idle", `{"host":"127.0.0.3","port":3,"weight":0}`,
		"web/new", `192.0.2.100:1`)
	for _, c := range []struct{ query, health, why string }{
		{"web/stopped", "absent", "its record says state drain"},
		{"web/zero", "unchecked", "its record says weight 0"},
		{"web/new", "absent", "the templates make no server line of it"},
		{"db/db-1", "maint", "its record says state maint"},
		{"api-1", "unchecked", ""},
		{"unchecked+api-2", "unchecked", ""},
	} {
		if health, why := why(c.query); health != c.health || !strings.Contains(why, c.why) || (c.why == "") != (why == "") {
			t.Errorf("%s: got health %q and %q, want %q and %q", c.query, health, why, c.health, c.why)
		}
	}
	for query, want := range map[string]string{
		"web/idle":    "HAProxy sends it requests although its record says weight 0: the templates do not use that",
		"web/leaving": "HAProxy sends it requests although its record says state drain: the templates do not use that",
		"web/zero":    "",
		"api-1":       "",
	} {
		if v := explain(t, w, query); !strings.HasPrefix(v.Differs, want) || (want == "") != (v.Differs == "") || want != "" && v.Why != "" {
			t.Errorf("%s: got %q, want %q; and %q", query, v.Differs, want, v.Why)
		}
	}
	newer := files(t, "# newer\n")
	w.change(func(s *sources) { s.desired, s.reconciler.Frozen = newer, &reconcile.Frozen{Generation: 3} })
	if _, why := why("web/new"); !strings.Contains(why, "generation 3 is frozen") {
		t.Errorf("web/new while pinned: %q, want the pin", why)
	}
	if page := get[status.Page](t, w.URL+"/v1/services?q=nosuch"); page.Found != 0 || page.All != 10 || page.Services == nil {
		t.Errorf("services?q=nosuch: %+v, want none of 10, as an empty list", page)
	}
	if page := get[status.Page](t, w.URL+"/v1/services?offset=1&limit=2"); page.Found != 10 || page.Last() != 3 || page.More() == "" || page.Less() == "" {
		t.Errorf("a part of the services: %+v", page)
	}
}

func TestNothingShowsASecret(t *testing.T) {
	w := threeServices(t)
	for _, path := range []string{"/", "/diff?from=1&to=2", "/v1/status", "/v1/services?limit=1000", "/v1/diff?from=1&to=2", "/v1/diff?to=desired&from=1", "/v1/generations"} {
		code, head, body := fetch(t, w.URL+path)
		if code != http.StatusOK {
			t.Errorf("GET %s: %d", path, code)
		}
		if strings.Contains(body, "hunter2") {
			t.Errorf("GET %s shows a password:\n%s", path, body)
		}
		if policy := head.Get("Content-Security-Policy"); !strings.HasPrefix(path, "/v1/") && (!strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe")) {
			t.Errorf("GET %s: policy %q", path, policy)
		}
	}
	if _, _, body := fetch(t, w.URL+"/?q=hunter2"); strings.Contains(body, "api-1") {
		t.Error("a search finds by what is hidden, so that it can be guessed letter by letter")
	}
}

func TestDiffNamesItsErrors(t *testing.T) {
	w := threeServices(t)
	d := get[status.Diff](t, w.URL+"/v1/diff")
	if d.From != "1" || d.To != "2" || len(d.Files) != 1 || d.Files[0].Added != 2 || d.Files[0].Removed != 0 {
		t.Errorf("diff without names: %+v, want generation 1 to the running 2", d)
	}
	if d := get[status.Diff](t, w.URL+"/v1/diff?to=desired"); d.From != "2" || len(d.Files) != 0 {
		t.Errorf("diff to what is desired: %+v, want no difference from 2", d)
	}
	for query, want := range map[string]int{"from=9&to=2": 404, "from=x": 400, "to=1": 404, "from=../../etc/passwd&to=2": 400} {
		for _, path := range []string{"/v1/diff?", "/diff?"} {
			if code, _, body := fetch(t, w.URL+path+query); code != want {
				t.Errorf("GET %s%s: %d, want %d:\n%s", path, query, code, want, body)
			}
		}
	}
}

func TestEventsTellOfChangesAndNothingElse(t *testing.T) {
	w := newEnv(t, nil)
	next := w.stream(t)
	first := next()
	if first.State != "running" {
		t.Errorf("first event: %+v, want the state as it is", first)
	}
	// Time that passes is no change: the next event is the one made here, and not one in between.
	w.mu.Lock()
	w.sources.store.LastSync = time.Now().Add(time.Second)
	w.mu.Unlock()
	time.AfterFunc(1500*time.Millisecond, func() { w.put("web/a", "192.0.2.7:80") })
	if e := next(); e.Revision != first.Revision+1 {
		t.Errorf("next event: %+v, want revision %d", e, first.Revision+1)
	}
}

// TestEventsTellOfAnotherReasonForTheSameState has a server that stays down, for other reasons than before.
func TestEventsTellOfAnotherReasonForTheSameState(t *testing.T) {
	var answer atomic.Int32
	answer.Store(http.StatusServiceUnavailable)
	held := make(chan struct{}, 1)
	checked := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code := answer.Load(); code > 0 {
			w.WriteHeader(int(code))
			return
		}
		select {
		case held <- struct{}{}:
		default:
		}
		<-r.Context().Done()
	}))
	t.Cleanup(checked.Close)
	addr := checked.Listener.Addr().String()
	w := newEnv(t, runHAProxy(t, "backend web\n\toption httpchk\n\ttimeout check 20s\n\tserver a "+addr+" check inter 100ms fall 1\n"))
	w.put("web/a", addr)
	services := func() string {
		t.Helper()
		_, _, body := fetch(t, w.URL+"/v1/services")
		return body
	}
	next := w.stream(t)
	for _, step := range []struct {
		code int32
		want string
	}{{http.StatusServiceUnavailable, "L7STS Service Unavailable"}, {http.StatusNotFound, "L7STS Not Found"}} {
		answer.Store(step.code)
		for !strings.Contains(services(), step.want) {
			next() // or the test ends here
		}
	}
	// The start of a check clears the reason that HAProxy gives.
	answer.Store(0)
	<-held
	for end := time.Now().Add(2500 * time.Millisecond); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if body := services(); !strings.Contains(body, "now: L7STS Not Found") {
			t.Fatalf("while the next check is under way: want the reason of the last one:\n%s", body)
		}
	}
}

type streamed struct {
	State    string
	Revision int64
}

// stream opens the stream of events; what it returns waits for the next one, at most until a minute has passed since.
func (e *env) stream(t *testing.T) func() streamed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL+"/v1/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewScanner(resp.Body)
	return func() (next streamed) {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				if err := json.Unmarshal([]byte(data), &next); err != nil {
					t.Fatal(err)
				}
				return next
			}
		}
		t.Fatalf("the stream ended: %v", lines.Err())
		return next
	}
}
