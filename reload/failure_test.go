package reload_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// outage asks an address for its body, one request after the other, and returns a function that ends this and
// tells how many requests failed.
func outage(t testing.TB, addr string) (stop func() (failed, done int)) {
	t.Helper()
	var failed, done atomic.Int64
	quit := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-quit:
				return
			default:
			}
			if _, err := get(addr); err != nil {
				failed.Add(1)
			}
			done.Add(1)
		}
	})
	end := sync.OnceFunc(func() { close(quit); wg.Wait() })
	t.Cleanup(end)
	return func() (int, int) {
		end()
		return int(failed.Load()), int(done.Load())
	}
}

// kill sends a signal to one process; 0 would mean the test's own process group.
func kill(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to kill: pid %d", pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func TestRejectedFilesLeaveTheOldOnesRunning(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		good := r.applied(config(addr, "good"), 1)
		r.submit(config(addr, "bad", "    frobnicate"), 2)
		s := r.until("three rejected attempts", func(s reload.Status) bool { return len(s.Applies) >= 4 && s.State == reload.Degraded })
		last := s.Applies[len(s.Applies)-1]
		if last.Outcome != reload.Rejected || !strings.Contains(s.LastError, "unknown keyword 'frobnicate'") {
			t.Errorf("got %+v", s)
		}
		if s.WorkerPid != good.WorkerPid || s.AppliedRevision != 1 || s.DesiredRevision != 2 || !s.Ready {
			t.Errorf("what runs has changed: %+v", s)
		}
		all, err := reload.Generations(r.dir)
		if err != nil || len(all) != 1 || !all[0].Current {
			t.Errorf("generations %+v, %v; want the good one only", all, err)
		}
		r.serves(addr, "good")
		fixed := r.applied(config(addr, "fixed"), 3)
		if fixed.LastError != "" {
			t.Errorf("the error stays: %+v", fixed)
		}
		r.serves(addr, "fixed")
	})
}

func TestAnAddressInUseCausesNoOutage(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, second := testkit.FreeAddr(t), testkit.FreeAddr(t)
		l, err := net.Listen("tcp", second)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		r := start(t, h, reload.Options{})
		one := r.applied(config(addr, "one"), 1)
		stop := outage(t, addr)
		r.submit(config(addr, "two", "    bind "+second), 2)
		s := r.until("three attempts", func(s reload.Status) bool { return len(s.Applies) >= 4 })
		if !strings.Contains(s.LastError, "bind "+second) || !strings.Contains(s.LastError, "address already in use") || s.WorkerPid != one.WorkerPid || last(s).Duration > time.Second {
			t.Errorf("got %+v", s)
		}
		if failed, done := stop(); failed != 0 || done == 0 {
			t.Errorf("%d of %d requests failed", failed, done)
		}
		l.Close()
		r.until("revision 2", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 2 })
		r.serves(second, "two")
	})
}

// A socket in the file system is not probed, so only the reload itself finds what is in its way.
func TestAFailedReloadLeavesTheOldFilesRunning(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, dir := testkit.FreeAddr(t), filepath.Join(stateDir(t), "d")
		r := start(t, h, reload.Options{})
		r.applied(config(addr, "one"), 1)
		r.submit(config(addr, "two", "    bind unix@"+dir+"/s"), 2)
		s := r.until("a failed reload", func(s reload.Status) bool { return s.State == reload.Degraded })
		last := s.Applies[len(s.Applies)-1]
		if last.Outcome != reload.Failed || last.Mode != reload.ModeReload || !strings.Contains(last.Reason, "annot bind") {
			t.Errorf("got %+v; want a reload that failed, in HAProxy's own words", last)
		}
		if !s.Ready || s.AppliedRevision != 1 || s.MasterPid == 0 {
			t.Errorf("got %+v; want revision 1 to go on", s)
		}
		if current, err := reload.Current(r.dir); err != nil || !current.Equal(config(addr, "one")) {
			t.Errorf("the link was not put back: %v", err)
		}
		r.serves(addr, "one")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		r.until("revision 2", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 2 })
		r.serves(addr, "two")
	})
}

func TestRejectedFilesDoNotStopNewerOnes(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{})
	r.submit(config(addr, "bad", "    frobnicate"), 1)
	r.until("degraded", func(s reload.Status) bool { return s.State == reload.Degraded })
	r.applied(config(addr, "good"), 2)
	r.serves(addr, "good")
}

func TestTheFirstStartWaitsForAnAddressInUse(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r := start(t, h, reload.Options{})
	r.submit(config(addr, "one"), 1)
	s := r.until("two attempts", func(s reload.Status) bool { return len(s.Applies) >= 2 })
	if s.Ready || !strings.Contains(s.LastError, "annot bind") {
		t.Errorf("got %+v", s)
	}
	l.Close()
	r.until("running", func(s reload.Status) bool { return s.State == reload.Running })
	r.serves(addr, "one")
}

func TestAKilledHAProxyIsRestarted(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		before := r.applied(config(addr, "one"), 1)
		for i, target := range []func(reload.Status) int{
			func(s reload.Status) int { return s.WorkerPid },
			func(s reload.Status) int { return s.MasterPid },
		} {
			kill(t, target(before), syscall.SIGKILL)
			after := r.until("a restart", func(s reload.Status) bool { return s.Restarts == i+1 && s.State == reload.Running })
			if after.MasterPid == before.MasterPid || after.WorkerPid == before.WorkerPid || !after.Ready {
				t.Errorf("before %+v\nafter %+v", before, after)
			}
			r.serves(addr, "one")
			before = after
		}
		if !strings.Contains(r.log.String(), "exit code 137") {
			t.Error("the log does not tell how haproxy ended")
		}
	})
}

// Nothing that a dead master leaves behind may delay the restart: not its zombies, not a process that keeps its output open.
func TestARestartDoesNotWaitForTheOutput(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		s := r.applied(config(addr, "one"), 1)
		quickest := time.Hour
		for i := range 3 { // on a busy machine the quickest tells
			held, err := os.OpenFile(fmt.Sprintf("/proc/%d/fd/2", s.MasterPid), os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer held.Close()
			began := time.Now()
			kill(t, s.MasterPid, syscall.SIGKILL)
			r.until("an exit", func(s reload.Status) bool { return s.Restarts == i+1 })
			quickest = min(quickest, time.Since(began))
			s = r.until("a restart", func(s reload.Status) bool { return s.State == reload.Running && s.Restarts == i+1 })
		}
		if quickest > 100*time.Millisecond {
			t.Errorf("the restart begins %v after the end of the master", quickest)
		}
		t.Logf("HAProxy %s: the restart begins %v after the end of the master", h.Version, quickest)
	})
}

func TestRunGivesUpOnAHAProxyThatKeepsExiting(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{MaxCrashes: 3})
	s := r.applied(config(addr, "one"), 1)
	for i := range 3 {
		kill(t, s.WorkerPid, syscall.SIGSEGV)
		if i < 2 {
			s = r.until("a restart", func(s reload.Status) bool { return s.Restarts == i+1 && s.State == reload.Running })
		}
	}
	var exit *reload.ExitError
	if err := r.wait(); !errors.As(err, &exit) || exit.Code != 128+11 {
		t.Errorf("Run: %v; want exit code 139", err)
	}
	if s := r.Status(); s.State != reload.Stopped || s.Ready {
		t.Errorf("got %+v", s)
	}
	if _, err := r.Apply(t.Context(), reload.Desired{}); !errors.Is(err, reload.ErrStopped) {
		t.Errorf("Apply: %v", err)
	}
}

func TestFilesChangedFromOutsideAreRestored(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{VerifyInterval: 20 * time.Millisecond})
	s := r.applied(config(addr, "one"), 1)
	for _, spoil := range []func() error{
		func() error {
			return os.WriteFile(filepath.Join(r.dir, "current", haproxy.ConfigFile), []byte("nonsense\n"), 0o600)
		},
		func() error { return os.Remove(filepath.Join(r.dir, "current")) },
		func() error { return os.Rename(filepath.Join(r.dir, "generations"), filepath.Join(r.dir, "gone")) },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			got, err := reload.Current(r.dir)
			if err == nil && !got.Equal(config(addr, "one")) {
				err = fmt.Errorf("got %q", got.Config())
			}
			return err
		})
	}
	if now := r.Status(); now.WorkerPid != s.WorkerPid {
		t.Error("haproxy was touched")
	}
	r.applied(config(addr, "two"), 2)
	r.serves(addr, "two")
}
