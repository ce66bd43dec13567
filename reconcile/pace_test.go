package reconcile_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
)

// applyStructured applies as the real one does, if words were sections.
func (a *fakeApplier) applyStructured(d reload.Desired) (reload.Result, error) {
	split := func(f haproxy.Files) (structure, others []string) {
		for word := range strings.FieldsSeq(string(f.Config())) {
			if strings.HasPrefix(word, "reload") {
				structure = append(structure, word)
			} else {
				others = append(others, word)
			}
		}
		return structure, others
	}
	r := reload.Result{Digest: d.Files.Digest(), Outcome: reload.Started, Revision: d.Revision}
	now, _ := split(a.running)
	next, others := split(d.Files)
	switch {
	case a.running.Digest() == "":
	case slices.Equal(now, next):
		r.Outcome = reload.Runtime
	case d.NoReload:
		part := strings.Join(slices.Concat(others, now), " ")
		a.running, _ = haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(part)}) // the name is valid
		r.Outcome, r.Files = reload.Runtime, a.running
		return r, reload.ErrReloadNeeded
	default:
		r.Outcome = reload.Reloaded
		a.reloads++
	}
	a.running = d.Files
	return r, nil
}

// startPaced is an env with templates in use whose second instance, and each later one, needs a reload. The applier does the
// rest of a change by commands.
func startPaced(t *testing.T, slow time.Duration) *env {
	e := startWith(t, reconcile.Options{ReloadInterval: time.Minute})
	e.applier.structured = true
	e.template("# good" + names)
	e.services("a")
	e.applier.take()
	e.applier.slow = slow
	return e
}

func (e *env) wantReloads(what string, want int) {
	e.t.Helper()
	synctest.Wait()
	e.applier.mu.Lock()
	defer e.applier.mu.Unlock()
	if e.applier.reloads != want {
		e.t.Errorf("%s: %d reloads, want %d", what, e.applier.reloads, want)
	}
}

func TestReloadsArePacedAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startPaced(t, 0)
		e.services("a", "reload-b")
		e.wantReloads("the first at once", 1)
		for range 100 { // which all need a reload, and hold nothing else
			e.services("a", "reload-b", "reload-c")
			e.services("a", "reload-b", "reload-c", "d")
			if got := e.reconciler.Status(); got.State != reconcile.StateFollowing || got.ApplyError != "" {
				t.Fatalf("while a reload waits: %s, %q", got.State, got.ApplyError)
			}
		}
		if n := len(e.applier.take()); n != 201 {
			t.Errorf("%d of 201 changes given at once", n)
		}
		e.wantReloads("within the interval", 1)
		time.Sleep(time.Minute)
		e.wantTaken("after the interval", "# good a d reload-b reload-c")
		e.wantReloads("after the interval", 2)
		time.Sleep(time.Hour)
		e.wantTaken("later")
		e.services("a")
		e.wantReloads("after a calm, at once again", 3)
	})
}

func TestATemplateEditInAStormTakesTheNextReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startPaced(t, 0)
		e.services("a", "reload-b")
		e.applier.take()
		e.template("# reload-new" + names)
		for i := range 59 {
			e.services([][]string{{"a", "reload-b"}, {"a", "d", "reload-b"}, {"reload-c"}}[i%3]...)
			time.Sleep(time.Second)
		}
		for _, text := range e.applier.take() {
			if text[:6] != "# good" {
				t.Fatalf("given %q before a reload is allowed: a part of it would be undone by the next change", text)
			}
		}
		time.Sleep(time.Second)
		e.wantTaken("when it is", "# reload-new a d reload-b")
		e.wantReloads("with all that has waited", 2)
		e.services("a", "d")
		e.wantTaken("then", "# reload-new a d")
	})
}

func TestALongReloadIsFollowedByATimeForCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startPaced(t, 5*time.Minute)
		e.services("a", "reload-b")
		time.Sleep(5 * time.Minute)
		e.wantReloads("the first", 1)
		e.applier.slow = 0
		e.services("a")
		time.Sleep(5*time.Minute - time.Second)
		e.wantReloads("for as long as it took", 1)
		time.Sleep(time.Second)
		e.wantReloads("then", 2)
	})
}

func TestAnOperatorsOrderIsNotPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startWith(t, reconcile.Options{ReloadInterval: time.Minute, StateDir: t.TempDir()})
		e.applier.structured = true
		e.template("# one" + names)
		e.services("a")
		e.template("# reload-two" + names)
		e.wantReloads("the edit", 1)
		if set, err := e.reconciler.Rollback(t.Context(), 0); err != nil || set.Number != 1 {
			t.Errorf("Rollback right after a reload: %+v, %v", set, err)
		}
		e.wantReloads("the rollback", 2)
	})
}

// What an operator freezes is what runs, not what ran before the last change in part.
func TestFreezeKeepsWhatRunsWhileAReloadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startWith(t, reconcile.Options{ReloadInterval: time.Minute, StateDir: t.TempDir()})
		e.applier.structured = true
		e.template("# good" + names)
		e.services("a")
		e.services("a", "reload-b")
		e.services("a", "c", "reload-b", "reload-d")
		frozen, err := e.reconciler.Freeze(t.Context(), 0)
		if err != nil || frozen.Digest != e.applier.running.Digest() {
			t.Errorf("%+v, %v; want the part that was applied last", frozen, err)
		}
		e.wantReloads("the freeze", 1)
		if got := string(e.applier.running.Config()); got != "# good a c reload-b" {
			t.Errorf("%q runs", got)
		}
	})
}

// balanced is a template with a route and a backend for each service.
func balanced(addr, header string) map[string]string {
	return map[string]string{"haproxy.cfg.tmpl": "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nfrontend f\n bind " + addr +
		"\n http-response set-header x-edit " + header + "\n{{range .Services}} use_backend {{.Name}} if { path_beg /{{.Name}}/ }\n{{end}}" +
		"{{range .Services}}backend {{.Name}}\n{{range .Instances}} server {{.Name}} {{.Addr}} id {{.ID}}\n{{end}}{{end}}"}
}

// records delivers a snapshot in which each service has one instance.
func (l *setup) records(ctx context.Context, addrs map[string]string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for service, addr := range addrs {
		builder.Put("/services/"+service+"/i", []byte(addr))
	}
	select {
	case l.snapshots <- builder.Snapshot(time.Now().UnixNano()):
	case <-ctx.Done():
	}
}

// The order tells: what needs no reload arrives although a reload waits, for an hour here.
func TestAnEndpointChangePassesAReloadThatWaits(t *testing.T) {
	l := startLiveWith(t, reconcile.Options{ReloadInterval: time.Hour})
	addr, one, two := testkit.FreeAddr(t), testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	l.trees <- balanced(addr, "1")
	l.records(t.Context(), map[string]string{"web": one.Addr})
	l.wantPage(addr+"/web", "one\n")
	l.records(t.Context(), map[string]string{"web": one.Addr, "first": one.Addr})
	l.wantPage(addr+"/first", "one\n")
	l.records(t.Context(), map[string]string{"web": one.Addr, "first": one.Addr, "held": one.Addr})
	l.records(t.Context(), map[string]string{"web": two.Addr, "first": one.Addr, "held": one.Addr})
	l.wantPage(addr+"/web", "two\n")
	if text, err := testkit.Get("http://" + addr + "/held/"); err == nil {
		t.Errorf("the second new service answers %q although no reload was due", text)
	}
	if got := l.reconciler.Status(); got.State != reconcile.StateFollowing {
		t.Errorf("the state is %s", got.State)
	}
}

// A template edit is applied while services, too, need one reload after the other, and their moves go on.
func TestATemplateEditIsAppliedInAStorm(t *testing.T) {
	l := startLiveWith(t, reconcile.Options{ReloadInterval: 300 * time.Millisecond})
	addr, one, two := testkit.FreeAddr(t), testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	l.trees <- balanced(addr, "1")
	l.records(t.Context(), map[string]string{"web": one.Addr})
	l.wantPage(addr+"/web", "one\n")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ctx.Err() == nil; i++ {
			l.records(ctx, map[string]string{"web": []string{one.Addr, two.Addr}[i%2], fmt.Sprintf("new-%d", i/20): one.Addr})
		}
	}()
	for _, outcome := range []reload.Outcome{reload.Reloaded, reload.Runtime} { // the storm takes the first reload
		testkit.Eventually(t, 30*time.Second, func() error {
			if !slices.ContainsFunc(l.manager.Status().Applies, func(a reload.Result) bool { return a.Outcome == outcome }) {
				return fmt.Errorf("nothing %s yet", outcome)
			}
			return nil
		})
	}
	l.trees <- balanced(addr, "2")
	testkit.Eventually(t, 30*time.Second, func() error {
		if sets, err := reconcile.TemplateSets(l.dir); err != nil || len(sets) < 2 {
			return fmt.Errorf("template sets that ran: %+v, %w", sets, err)
		}
		return nil
	})
	stop()
	<-ended
	l.records(t.Context(), map[string]string{"web": two.Addr, "last": one.Addr})
	l.wantPage(addr+"/last", "one\n")
	l.wantPage(addr+"/web", "two\n")
}
