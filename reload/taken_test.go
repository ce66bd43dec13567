package reload_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

// Whoever makes the files can only ask for less if it is told what was too much: all of it, and however HAProxy was to get it.
func TestTakenAddressesAreNamed(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr, free, one, two := testkit.FreeAddr(t), testkit.FreeAddr(t), testkit.FreeAddr(t), testkit.FreeAddr(t)
		squat := func(addr string) net.Listener {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			return l
		}
		first, second := squat(one), squat(two)
		greedy := config(addr, "greedy", "    bind "+one, "    bind "+free, "    bind "+two)
		wantTaken := func(mode reload.Mode, s reload.Status) {
			t.Helper()
			last := s.Applies[len(s.Applies)-1]
			var got []string
			for _, taken := range last.Taken {
				got = append(got, taken.Addr.String())
				if !taken.Still() {
					t.Errorf("%s: %s is said to be free", mode, taken.Addr)
				}
			}
			if want := []string{one, two}; last.Mode != mode || last.Outcome != reload.Failed || !slices.Equal(got, want) {
				t.Errorf("got %s %s with %q taken, want %s failed with %q: %s", last.Mode, last.Outcome, got, mode, want, last.Reason)
			}
		}
		failed := func(s reload.Status) bool {
			return len(s.Applies) > 0 && s.Applies[len(s.Applies)-1].Outcome == reload.Failed
		}

		r := start(t, h, reload.Options{RetryMin: time.Hour, RetryMax: time.Hour})
		r.submit(greedy, 1)
		wantTaken(reload.ModeStart, r.until("a failed start", failed))
		r.applied(config(addr, "modest"), 2)
		r.submit(greedy, 3)
		s := r.until("a failed reload", failed)
		wantTaken(reload.ModeReload, s)
		first.Close()
		if taken := s.Applies[len(s.Applies)-1].Taken; taken[0].Still() || !taken[1].Still() {
			t.Errorf("only %s is free now: %+v", one, taken)
		}
		second.Close()
		r.applied(config(addr, "modest"), 4)
		r.applied(greedy, 5)
	})
}

// HAProxy looks the name up only when it binds, and that is too late.
func TestATakenAddressIsFoundBehindItsName(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		first := r.applied(config(addr, "one"), 1)
		stop := outage(t, addr)
		r.submit(config(addr, "two", "    bind ipv4@localhost:"+port), 2)
		s := r.until("three attempts", func(s reload.Status) bool { return len(s.Applies) >= 4 })
		if a := last(s); a.ReloadFailed || len(a.Taken) != 1 || a.Taken[0].Addr.String() != l.Addr().String() || s.WorkerPid != first.WorkerPid {
			t.Errorf("got %+v, want %s taken and no reload", a, l.Addr())
		}
		if failed, done := stop(); failed != 0 || done == 0 {
			t.Errorf("%d of %d requests failed", failed, done)
		}
		l.Close()
		r.until("revision 2", func(s reload.Status) bool { return s.State == reload.Running && s.AppliedRevision == 2 })
		r.serves("127.0.0.1:"+port, "two")
	})
}

func TestAnAddressTakenWhileHAProxyWasDeadIsNamed(t *testing.T) {
	all := testkit.HAProxies(t)
	h := all[len(all)-1]
	// An haproxy that starts only when it may.
	dir := t.TempDir()
	script, wait := filepath.Join(dir, "haproxy"), filepath.Join(dir, "wait")
	text := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *' -W '*) while [ -e %s ]; do sleep 0.02; done;; esac\nexec %s \"$@\"\n", wait, h.Path)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	addr, second := testkit.FreeAddr(t), testkit.FreeAddr(t)
	r := start(t, testkit.HAProxy{Version: h.Version, Path: script}, reload.Options{RetryMin: time.Hour, RetryMax: time.Hour})
	s := r.applied(config(addr, "greedy", "    bind "+second), 1)
	if err := os.WriteFile(wait, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	kill(t, s.MasterPid, syscall.SIGKILL)
	var l net.Listener
	testkit.Eventually(t, 20*time.Second, func() (err error) { l, err = net.Listen("tcp", second); return err })
	defer l.Close()
	if err := os.Remove(wait); err != nil {
		t.Fatal(err)
	}
	s = r.until("a failed start", func(s reload.Status) bool { return s.Applies[len(s.Applies)-1].Outcome == reload.Failed })
	if last := s.Applies[len(s.Applies)-1]; len(last.Taken) != 1 || last.Taken[0].Addr.String() != second || !strings.Contains(last.Reason, second) {
		t.Errorf("got %+v, want %s taken", last, second)
	}
	r.applied(config(addr, "modest"), 2)
	r.serves(addr, "modest")
}
