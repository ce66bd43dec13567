package reload_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// pool is a configuration with one backend that has these server lines.
func pool(addr string, servers ...string) haproxy.Files {
	return files(map[string]string{"haproxy.cfg": head + `
    retries 1
    default-server inter 10s
frontend front
    bind ` + addr + `
    default_backend web
backend web
    balance roundrobin
    option redispatch
    server ` + strings.Join(servers, "\n    server ") + "\n"})
}

func line(name, addr string, id int, more string) string {
	return fmt.Sprintf("%s %s id %d %s", name, addr, id, more)
}

// last is the newest apply.
func last(s reload.Status) reload.Result { return s.Applies[len(s.Applies)-1] }

// show asks the worker of r.
func (r *harness) show(command string) string {
	r.t.Helper()
	reply, err := haproxy.RuntimeSocket(filepath.Join(r.dir, "run", "runtime.sock"), 20*time.Second).Exec(context.Background(), command)
	if err != nil {
		r.t.Fatal(err)
	}
	return reply.Text
}

func TestChangesOfServersNeedNoReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		one, two, three := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", ""), testkit.StartWeb(t, "three", "")
		r := start(t, h, reload.Options{})
		first := r.applied(pool(addr, line("a", one.Addr, 11, "weight 100 check")), 1)
		r.serves(addr, "one\n")
		revision := int64(1)
		for _, step := range []struct {
			name    string
			servers []string
			want    string // who answers
		}{
			{"add", []string{line("a", one.Addr, 11, "weight 100 check"), line("b", two.Addr, 12, "weight 100 check")}, ""},
			{"drain", []string{line("a", one.Addr, 11, "weight 0 check"), line("b", two.Addr, 12, "weight 100 check")}, "two\n"},
			{"move", []string{line("a", one.Addr, 11, "weight 0 check"), line("b", three.Addr, 12, "weight 100 check")}, "three\n"},
			{"weight", []string{line("a", one.Addr, 11, "weight 7 check"), line("b", three.Addr, 12, "weight 0 check")}, "one\n"},
			{"maint", []string{line("a", one.Addr, 11, "weight 7 check disabled"), line("b", three.Addr, 12, "weight 9 check")}, "three\n"},
			{"remove", []string{line("b", three.Addr, 12, "weight 9 check")}, "three\n"},
			{"back again", []string{line("a", two.Addr, 11, "weight 100 check"), line("b", three.Addr, 12, "weight 0 check")}, "two\n"},
			{"replace all", []string{line("c", one.Addr, 13, "weight 100 check")}, "one\n"},
		} {
			revision++
			s := r.applied(pool(addr, step.servers...), revision)
			if a := last(s); a.Mode != reload.ModeRuntime || a.Outcome != reload.Runtime || a.Servers == 0 || a.Commands == 0 || s.WorkerPid != first.WorkerPid {
				t.Errorf("%s: %+v, worker %d after %d; want no reload", step.name, a, s.WorkerPid, first.WorkerPid)
			}
			for range 4 {
				if got, err := get(addr); err != nil || step.want != "" && got != step.want {
					t.Errorf("%s: got %q, %v; want %q", step.name, got, err, step.want)
				}
			}
		}
		// What the commands did gets to the disk, checked, and the servers that left are deleted.
		r.until("the last change on disk", func(s reload.Status) bool {
			return s.AppliedGeneration > first.AppliedGeneration && onDisk(r.dir, "server c ")
		})
		if strings.HasPrefix(h.Version, "2.") { // deleted only after connect timeout and retries, in 5 s
			return
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			if state := r.show("show servers state web"); strings.Contains(state, " a ") || strings.Contains(state, " b ") {
				return fmt.Errorf("servers that left are still there:\n%s", state)
			}
			return nil
		})
	})
}

// onDisk says whether the current configuration holds a text.
func onDisk(dir, text string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "current", "haproxy.cfg"))
	return err == nil && strings.Contains(string(b), text)
}

func TestServersThatLeaveAreDeletedOn26(t *testing.T) {
	t.Parallel()
	for _, h := range testkit.HAProxies(t) {
		if h.Version != "2.6" {
			continue
		}
		addr := testkit.FreeAddr(t)
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		r := start(t, h, reload.Options{})
		r.applied(pool(addr, line("a", one.Addr, 11, ""), line("b", two.Addr, 12, "")), 1)
		s := r.applied(pool(addr, line("a", one.Addr, 11, "")), 2)
		if s.Leaving != 1 {
			t.Errorf("%d servers are leaving, want 1", s.Leaving)
		}
		r.until("no server leaving", func(s reload.Status) bool { return s.Leaving == 0 })
		if state := r.show("show servers state web"); strings.Contains(state, " b ") {
			t.Errorf("the server that left is still there:\n%s", state)
		}
	}
}

func TestMapsAndListsChangeWithoutAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		text := head + "frontend front\n bind " + addr + "\n acl no path -f lists/no.acl\n http-request deny if no\n" +
			" http-request return status 200 content-type text/plain lf-string %[path,map(maps/m.map,none)]\n"
		set := func(m, l string) haproxy.Files {
			return files(map[string]string{"haproxy.cfg": text, "maps/m.map": m, "lists/no.acl": l})
		}
		r := start(t, h, reload.Options{})
		var big strings.Builder
		for i := range 3000 {
			fmt.Fprintf(&big, "/%d value-%d\n", i, i)
		}
		first := r.applied(set("/ one\n", "/x\n"), 1)
		r.serves(addr, "one")
		for i, content := range []string{"/ two\n/a b c\n", "# nothing\n", big.String() + "/ three\n"} {
			s := r.applied(set(content, fmt.Sprintf("/x\n/y%d\n", i)), int64(i+2))
			if a := last(s); a.Mode != reload.ModeRuntime || s.WorkerPid != first.WorkerPid {
				t.Fatalf("%+v, worker %d after %d", a, s.WorkerPid, first.WorkerPid)
			}
			want := []string{"two", "none", "three"}[i]
			if got, err := get(addr); err != nil || got != want {
				t.Errorf("got %q, %v; want %q", got, err, want)
			}
		}
		// The list is in force too.
		s := r.applied(set(big.String(), "/\n"), 9)
		if got, _ := get(addr); s.WorkerPid != first.WorkerPid || !strings.Contains(got, "403") {
			t.Errorf("worker %d after %d, got %q", s.WorkerPid, first.WorkerPid, got)
		}
	})
}

// Each Apply is one attempt, and no more: merging changes is the caller's job. The files follow in steps.
func TestABurstOfAppliesEndsInTheNewestState(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	const applies = 1000
	addr, web := testkit.FreeAddr(t), testkit.StartWeb(t, "one", "")
	r := start(t, h, reload.Options{Keep: 3})
	first := r.applied(pool(addr, line("s0", web.Addr, 1, "")), 1)
	began := time.Now()
	for i := range applies {
		set := pool(addr, line(fmt.Sprintf("s%d", i%50), web.Addr, 1+i%50, fmt.Sprintf("weight %d", 1+i%200)))
		if a, err := r.Apply(t.Context(), reload.Desired{Files: set, Revision: int64(i + 2)}); err != nil || a.Outcome != reload.Runtime {
			t.Fatalf("%+v, %v", a, err)
		}
	}
	s := r.until("the last one", func(s reload.Status) bool { return s.AppliedRevision == applies+1 && s.State == reload.Running })
	if s.WorkerPid != first.WorkerPid {
		t.Errorf("worker %d after %d", s.WorkerPid, first.WorkerPid)
	}
	s = r.until("it on disk", func(s reload.Status) bool { return onDisk(r.dir, "server s49 ") && onDisk(r.dir, "weight 200") })
	// The log and the disk follow once a second.
	most := 2 + int(time.Since(began)/time.Second)
	if n := r.log.count("level=WARN"); n > 0 {
		t.Errorf("%d warnings of HAProxy's that it obeys", n)
	}
	if n := r.log.count("msg=applied result=runtime"); n > most {
		t.Errorf("%d lines were logged for %d changes in %v", n, applies, time.Since(began))
	}
	if n := s.AppliedGeneration - first.AppliedGeneration; n > int64(most) {
		t.Errorf("%d generations were written for %d changes in %v", n, applies, time.Since(began))
	} else {
		t.Logf("%d generations were written for %d changes in %v", n, applies, time.Since(began))
	}
}
