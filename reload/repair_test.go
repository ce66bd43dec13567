package reload_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestARepairThatFailsOnceIsRepeatedByItsOwnTimer(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{ReloadTimeout: 2 * time.Second, VerifyInterval: time.Hour, DriftInterval: 20 * time.Millisecond})
	s := r.applied(pool(addr, line("a", "127.0.0.1:1", 11, "weight 100")), 1)
	hang(t, s.MasterPid)
	r.show("add server web/stranger 127.0.0.1:3") // only a reload rids the worker of it
	r.until("a failed repair", func(s reload.Status) bool { return s.State == reload.Degraded && s.LastError != "" })
	wake(t, s.MasterPid)
	r.until("a repaired worker", func(s reload.Status) bool { return s.State == reload.Running && s.Ready })
	testkit.Eventually(t, 20*time.Second, func() error {
		if text := r.show("show servers state web"); strings.Contains(text, "stranger") {
			return errors.New(text)
		}
		return nil
	})
}

func hang(t *testing.T, pid int) { kill(t, pid, syscall.SIGSTOP) }
func wake(t *testing.T, pid int) { kill(t, pid, syscall.SIGCONT) }

// NoReload is for Apply alone. A worker that may have taken some of the commands is reloaded with the files that were confirmed.
func TestCommandsThatFailWithNoReloadLeaveWhatWasConfirmed(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	r := start(t, h, reload.Options{})
	first := r.applied(pool(addr, line("a", one.Addr, 11, "")), 1)
	r.show("add server web/b 127.0.0.1:3") // the planner does not know of it, so that its own "add server" fails
	next := pool(addr, line("a", two.Addr, 11, ""), line("b", two.Addr, 12, ""))
	if a, err := r.Apply(t.Context(), reload.Desired{Files: next, Revision: 2, NoReload: true}); !errors.Is(err, reload.ErrReloadNeeded) {
		t.Fatalf("got %+v, %v", a, err)
	}
	s := r.until("a repaired worker", func(s reload.Status) bool { return s.Ready && s.WorkerPid != first.WorkerPid })
	if s.AppliedRevision != 1 {
		t.Errorf("got %+v", s)
	}
	r.serves(addr, "one\n")
	if a, err := r.Apply(t.Context(), reload.Desired{Files: next, Revision: 2}); err != nil {
		t.Errorf("got %+v, %v", a, err)
	}
	r.serves(addr, "two\n")
}

func TestRunEndsAfterItsBackgroundSave(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	var armed atomic.Bool
	reached, proceed := make(chan struct{}, 1), make(chan struct{})
	r := start(t, h, reload.Options{MaxCrashes: 1, Step: func(name string) {
		if name == "check" && armed.Load() {
			reached <- struct{}{}
			<-proceed
		}
	}})
	addr := testkit.FreeAddr(t)
	r.applied(pool(addr, line("a", "127.0.0.1:1", 11, "")), 1)
	armed.Store(true)
	s := r.applied(pool(addr, line("b", "127.0.0.1:1", 12, "")), 2)
	<-reached
	kill(t, s.WorkerPid, syscall.SIGKILL)
	r.until("the exit to be seen", func(s reload.Status) bool { return s.Restarts == 1 })
	select {
	case err := <-r.ended:
		t.Errorf("Run has returned while a file was written: %v", err)
		r.runs = false
	case <-time.After(300 * time.Millisecond):
	}
	close(proceed)
	if r.runs {
		if exit := (*reload.ExitError)(nil); !errors.As(r.wait(), &exit) {
			t.Error("Run did not report the exit")
		}
	}
}
