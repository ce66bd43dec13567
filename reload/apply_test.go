package reload_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestTheFirstApplyStartsHAProxyAndTheNextReloadsIt(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		one := r.applied(config(addr, "one"), 1)
		r.serves(addr, "one")
		two := r.applied(config(addr, "two"), 2)
		if got, err := get(addr); err != nil || got != "two" {
			t.Errorf("right after the status says running: got %q, %v; want two", got, err)
		}
		if one.MasterPid != two.MasterPid || one.WorkerPid == two.WorkerPid {
			t.Errorf("master %d -> %d, worker %d -> %d; want the same master with a new worker", one.MasterPid, two.MasterPid, one.WorkerPid, two.WorkerPid)
		}
		if !two.Ready || two.AppliedGeneration != one.AppliedGeneration+1 {
			t.Errorf("ready %v, generation %d after %d", two.Ready, two.AppliedGeneration, one.AppliedGeneration)
		}
		for i := range 5 {
			s := r.applied(config(addr, fmt.Sprintf("turn%d", i)), int64(10+i))
			// The old worker answers for a while after the master has announced the new one.
			reply, err := haproxy.RuntimeSocket(filepath.Join(r.dir, "run", "runtime.sock"), 10*time.Second).Exec(t.Context(), "show info")
			if err != nil {
				t.Fatal(err)
			}
			if info, err := haproxy.ParseInfo(reply.Text); err != nil || info.Pid != s.WorkerPid {
				t.Errorf("worker %d answers, %v; the status says %d", info.Pid, err, s.WorkerPid)
			}
		}
		two = r.applied(config(addr, "two"), 20)
		same := r.applied(config(addr, "two"), 21)
		if same.WorkerPid != two.WorkerPid || same.Applies[len(same.Applies)-1].Outcome != reload.Unchanged {
			t.Errorf("equal files: worker %d -> %d, %+v; want no reload", two.WorkerPid, same.WorkerPid, same.Applies)
		}
		if err := r.end(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "current", "manifest.json")); err != nil {
			t.Error(err)
		}
	})
}

func TestApplyReturnsTheOutcome(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{})
	apply := func(d reload.Desired) (reload.Result, error) { return r.Apply(t.Context(), d) }
	a, err := apply(reload.Desired{Files: config(addr, "one"), Revision: 1, TemplateSet: 7, NoReload: true})
	if err != nil || a.Outcome != reload.Started || a.Revision != 1 || a.Generation != 1 || a.TemplateSet != 7 || a.Digest == "" {
		t.Fatalf("a start: %+v, %v", a, err)
	}
	if s := r.Status(); s.State != reload.Running || !s.Ready {
		t.Errorf("the status after the answer is %+v", s)
	}
	if a, err = apply(reload.Desired{Files: config(addr, "one"), Revision: 2}); err != nil || a.Outcome != reload.Unchanged {
		t.Errorf("the same files: %+v, %v", a, err)
	}
	if _, err = apply(reload.Desired{Files: config(addr, "two"), NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) {
		t.Errorf("a change that needs a reload, with NoReload: %v", err)
	}
	if s := r.Status(); s.State != reload.Running || s.DesiredRevision != 2 {
		t.Errorf("the status is %+v", s)
	}
	r.serves(addr, "one")
	rejected := (*reload.CheckError)(nil)
	if a, err = apply(reload.Desired{Files: config(addr, "two", "  frobnicate"), Revision: 3}); !errors.As(err, &rejected) || a.Outcome != reload.Rejected {
		t.Errorf("files with a mistake: %+v, %v", a, err)
	}
	if s := r.Status(); s.State != reload.Degraded || !s.Ready {
		t.Errorf("the status is %+v", s)
	}
	if a, err = apply(reload.Desired{Files: config(addr, "two"), Revision: 4}); err != nil || a.Outcome != reload.Reloaded {
		t.Errorf("other files: %+v, %v", a, err)
	}
	r.serves(addr, "two")
	if err := r.end(); err != nil {
		t.Error(err)
	}
	if _, err = apply(reload.Desired{Files: config(addr, "one")}); !errors.Is(err, reload.ErrStopped) {
		t.Errorf("after the end: %v", err)
	}
}

// A reload that HAProxy cannot do closes its listeners for two seconds. The caller pauses reloads then, and endpoints change on.
func TestAfterAFailedReloadEndpointsChangeWithoutOne(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, dir := testkit.FreeAddr(t), filepath.Join(stateDir(t), "d")
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		good := func(server string) haproxy.Files { return pool(addr, line("a", server, 11, "")) }
		bad := func(server string) haproxy.Files {
			return cfg(strings.Replace(string(good(server).Config()), "default_backend", "bind unix@"+dir+"/s\n    default_backend", 1))
		}
		r := start(t, h, reload.Options{})
		worker := r.applied(good(one.Addr), 1).WorkerPid
		failed := (*reload.ReloadError)(nil)
		if a, err := r.Apply(t.Context(), reload.Desired{Files: bad(one.Addr)}); !errors.As(err, &failed) || a.Outcome != reload.Failed {
			t.Fatalf("got %+v, %v; want a reload that failed", a, err)
		}
		stop := outage(t, addr)
		for i, server := range []string{two.Addr, one.Addr, two.Addr} {
			if a, err := r.Apply(t.Context(), reload.Desired{Files: bad(server), NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) || a.Outcome != reload.Runtime {
				t.Errorf("files of which a part needs a reload: %+v, %v; want the rest done", a, err)
			}
			a, err := r.Apply(t.Context(), reload.Desired{Files: good(server), Revision: int64(i + 2), NoReload: true})
			if err != nil || a.Outcome != reload.Unchanged {
				t.Errorf("got %+v, %v; want what runs", a, err)
			}
		}
		if failed, done := stop(); failed != 0 || done == 0 || r.Status().WorkerPid != worker {
			t.Errorf("%d of %d requests failed; %+v", failed, done, r.Status())
		}
	})
}

func TestTheEndOfACallersContextEndsItsWaiting(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	reached, proceed := make(chan struct{}), make(chan struct{})
	r := start(t, h, reload.Options{Step: func(name string) {
		if name == "load" {
			close(reached)
			<-proceed
		}
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-reached; cancel() }()
	if _, err := r.Apply(ctx, reload.Desired{Files: config(addr, "one"), Revision: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(proceed)
	r.until("revision 1", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 1 })
}

// Every wait has an end and no loop spins: while HAProxy cannot start, the pauses grow.
func TestTheLoopPausesWhileHAProxyCannotStart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, script string }{
		{"a program that exits at once", "exit 1"},
		{"a socket that never answers", "exec sleep 60"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := testkit.OneHAProxy(t)
			addr, passes := testkit.FreeAddr(t), atomic.Int64{}
			first := start(t, h, reload.Options{})
			first.applied(config(addr, "one"), 1)
			if err := first.end(); err != nil {
				t.Fatal(err)
			}
			program := filepath.Join(stateDir(t), "haproxy")
			text := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *' -W '*) %s ;; esac\nexec %s \"$@\"\n", c.script, h.Path)
			if err := os.WriteFile(program, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			r := start(t, testkit.HAProxy{Version: h.Version, Path: program}, reload.Options{
				StateDir: first.dir, StartWait: time.Millisecond, ReloadTimeout: 100 * time.Millisecond,
				Step: func(name string) {
					if name == "wait" {
						passes.Add(1)
					}
				},
			})
			r.until("a failed start", func(s reload.Status) bool { return s.State == reload.Degraded })
			time.Sleep(3 * time.Second) // a spinning loop would make thousands of passes
			if n := passes.Load(); n < 3 || n > 40 {
				t.Errorf("%d passes of the loop in 3 s", n)
			}
		})
	}
}
