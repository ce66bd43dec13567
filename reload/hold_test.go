package reload_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// Each change of a service makes new files of what HAProxy has just failed to load, and that cost two seconds without listeners.
func TestWhatHAProxyFailedToLoadIsNotTriedAgainForEveryChangeOfAService(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr, dir := testkit.FreeAddr(t), filepath.Join(stateDir(t), "d")
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		good := func(server string) haproxy.Files { return pool(addr, line("a", server, 11, "")) }
		bad := func(server, more string) haproxy.Files {
			return cfg(strings.Replace(string(good(server).Config()), "default_backend", more+"bind unix@"+dir+"/s\n    default_backend", 1))
		}
		r := start(t, h, reload.Options{}, func(m *reload.Manager) { m.SetHold(time.Hour) })
		worker := r.applied(good(one.Addr), 1).WorkerPid
		outcome := func(files haproxy.Files, revision int64) reload.Result {
			t.Helper()
			r.submit(files, revision)
			return last(r.until("an outcome", func(s reload.Status) bool { return last(s).Revision == revision && s.State != reload.Applying }))
		}
		if a := outcome(bad(one.Addr, ""), 2); a.Outcome != reload.Failed || !a.ReloadFailed {
			t.Fatalf("got %+v, want a reload that failed", a)
		}

		stop := outage(t, addr)
		for i, server := range []string{two.Addr, one.Addr, two.Addr} {
			a := outcome(bad(server, ""), int64(3+2*i))
			if a.Outcome != reload.Failed || a.ReloadFailed || !strings.Contains(a.Reason, "annot bind") {
				t.Errorf("got %+v, want no second reload and the reason of the first", a)
			}
			// What runs goes on to follow services.
			if a := outcome(good(server), int64(4+2*i)); a.Outcome != reload.Runtime {
				t.Errorf("got %+v, want a change without a reload", a)
			}
		}
		if failed, done := stop(); failed != 0 || done == 0 || r.Status().WorkerPid != worker {
			t.Errorf("%d of %d requests failed; %+v", failed, done, r.Status())
		}
		if n := r.log.count(`level=ERROR msg="apply failed`); n != 1 {
			t.Errorf("the same error is logged %d times", n)
		}

		// Other files may be what puts it right.
		if a := outcome(bad(two.Addr, "option httplog\n    "), 10); !a.ReloadFailed {
			t.Errorf("got %+v, want a reload, for another structure", a)
		}
		if a := outcome(config(addr, "other"), 11); a.Outcome != reload.Reloaded {
			t.Errorf("got %+v, want a reload", a)
		}
		if a := outcome(bad(two.Addr, ""), 12); a.Outcome != reload.Failed || a.ReloadFailed {
			t.Errorf("got %+v, want what failed first to wait still", a)
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := r.Submit(t.Context(), reload.Desired{Files: bad(two.Addr, ""), Revision: 13, Now: true}); err != nil {
			t.Fatal(err)
		}
		r.until("an operator's order", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 13 })
		r.serves(addr, "two\n")
	})
}

func TestFilesThatFailAgainAreHeldBackForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, files, others := reload.NewHolds(), cfg("frontend f\n"), cfg("frontend g\n")
		for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
			h.Failed(files)
			if got := h.Left(files); got != want*time.Second {
				t.Errorf("held back for %v, want %v", got, want*time.Second)
			}
			time.Sleep(want * time.Second)
			if got := h.Left(files); got != 0 {
				t.Errorf("%v are left after that time", got)
			}
		}
		h.Failed(others)
		if got := h.Left(others); got != 10*time.Second {
			t.Errorf("others are held back for %v", got)
		}
		h.Worked(files)
		h.Failed(files)
		if got := h.Left(files); got != 10*time.Second {
			t.Errorf("after a success they are held back for %v", got)
		}
	})
}

func TestWhatHoldsFilesBack(t *testing.T) {
	const text = planHead + "    use_backend %[path,map(m.map,b)]\n    acl x path -f l.acl\nbackend b\n    server a 10.0.0.1:80 id 11\n"
	beside := []string{"m.map", "/a b\n", "l.acl", "/x\n", "e.http", "one\n"}
	for _, tt := range []struct {
		name  string
		files haproxy.Files
		held  bool
	}{
		{"the same files", cfg(text, beside...), true},
		{"a server that moves", cfg(strings.Replace(text, ".0.1:", ".0.2:", 1), beside...), true},
		{"more servers, and a comment", cfg(text+"    server b 10.0.0.2:80 # new\n", beside...), true},
		{"entries of a map", cfg(text, "m.map", "/c d\n", "l.acl", "/x\n", "e.http", "one\n"), true},
		{"entries of a list", cfg(text, "m.map", "/a b\n", "l.acl", "/y\n", "e.http", "one\n"), true},
		{"another file", cfg(text, "m.map", "/a b\n", "l.acl", "/x\n", "e.http", "two\n"), false},
		{"another address to listen on", cfg(strings.Replace(text, ":80\n", ":81\n", 1), beside...), false},
		{"another backend", cfg(text+"backend c\n", beside...), false},
		{"default-server", cfg(text+"    default-server check\n", beside...), false},
		{"a text that does not lex", cfg(text+"    option \"a\n", beside...), false},
	} {
		h := reload.NewHolds()
		h.Failed(cfg(text, beside...))
		if held := h.Left(tt.files) > 0; held != tt.held {
			t.Errorf("%s: held back %v", tt.name, held)
		}
	}
}
