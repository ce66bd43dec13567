package reload_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// Changes of servers go through while a reload that other changes need has to wait, and are on disk before it comes.
func TestEndpointsDoNotWaitForAReloadThatWaits(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	conf := func(server, turn string) haproxy.Files {
		return cfg(head + "frontend f\n bind " + addr + "\n http-response set-header x-turn " + turn + "\n default_backend web\nbackend web\n server a " + server + " id 11\n")
	}
	r := start(t, h, reload.Options{})
	worker := r.applied(conf(one.Addr, "1"), 1).WorkerPid
	a, err := r.Apply(t.Context(), reload.Desired{Files: conf(two.Addr, "2"), Revision: 2, NoReload: true})
	if !errors.Is(err, reload.ErrReloadNeeded) || a.Outcome != reload.Runtime || !a.Files.Equal(conf(two.Addr, "1")) {
		t.Fatalf("got %+v, %v; want the server moved and the rest to wait for a reload", a, err)
	}
	if got, err := get(addr); err != nil || got != "two\n" {
		t.Errorf("after the answer %q is served, %v", got, err)
	}
	if s := r.Status(); s.State != reload.Running || s.WorkerPid != worker || s.AppliedRevision != 1 || s.DesiredRevision != 2 {
		t.Errorf("the status is %+v; want the same worker, and revision 1 until all of 2 is applied", s)
	}
	testkit.Eventually(t, 30*time.Second, func() error {
		text, err := os.ReadFile(filepath.Join(r.dir, "current", "haproxy.cfg"))
		if err == nil && string(text) != string(conf(two.Addr, "1").Config()) {
			err = fmt.Errorf("on disk is\n%s", text)
		}
		return err
	})
	if a, err = r.Apply(t.Context(), reload.Desired{Files: conf(two.Addr, "2"), Revision: 2, NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) || a.Outcome != "" {
		t.Errorf("the same again: %+v, %v; want nothing done", a, err)
	}
	if a, err = r.Apply(t.Context(), reload.Desired{Files: conf(two.Addr, "2"), Revision: 2}); err != nil || a.Outcome != reload.Reloaded {
		t.Errorf("with leave to reload: %+v, %v", a, err)
	}
	if s := r.Status(); s.AppliedRevision != 2 || s.State != reload.Running {
		t.Errorf("the status is %+v", s)
	}
}

// Server lines that one template set has made may mean something else between the lines of another, such as its default-server.
func TestNoPartOfOtherTemplatesIsApplied(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	one := testkit.StartWeb(t, "one", "")
	conf := func(settings, servers string) haproxy.Files {
		return cfg(head + "frontend f\n bind " + addr + "\n default_backend web\nbackend web\n" + servers + "defaults\n" + settings)
	}
	r := start(t, h, reload.Options{})
	server := " server a " + one.Addr + " id 11\n"
	if _, err := r.Apply(t.Context(), reload.Desired{Files: conf("", server), Revision: 1, TemplateSet: 1}); err != nil {
		t.Fatal(err)
	}
	next := conf(" retries 2\n", server+" server b "+one.Addr+" id 12\n")
	for n, want := range []reload.Outcome{"", reload.Runtime} {
		set := int64(2 - n)
		if a, err := r.Apply(t.Context(), reload.Desired{Files: next, Revision: 2, TemplateSet: set, NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) || a.Outcome != want {
			t.Errorf("template set %d: %+v, %v; want %q", set, a, err, want)
		}
	}
}
