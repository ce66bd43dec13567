package reload_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

// The caller can ask for less only if it knows what was too much: all of it, and whichever way HAProxy was to get it.
func TestAddressesInUseAreNamed(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr, free, one, two := testkit.FreeAddr(t), testkit.FreeAddr(t), testkit.FreeAddr(t), testkit.FreeAddr(t)
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	first, second := listen(one), listen(two)
	more := config(addr, "more", "    bind "+one, "    bind "+free, "    bind "+two)
	r := start(t, h, reload.Options{})
	failedApply := func(mode reload.Mode) []reload.AddressInUse {
		t.Helper()
		a, err := r.Apply(t.Context(), reload.Desired{Files: more})
		found := (*reload.BindError)(nil)
		if !errors.As(err, &found) || a.Mode != mode || a.Outcome != reload.Failed || len(found.Addresses) != 2 {
			t.Fatalf("got %+v, %v; want a %s that failed with two addresses", a, err, mode)
		}
		for i, want := range []string{one, two} {
			if got := found.Addresses[i]; got.Addr.String() != want || !got.StillInUse() {
				t.Errorf("%s: got %+v, want %s in use", mode, got, want)
			}
		}
		return found.Addresses
	}
	failedApply(reload.ModeStart)
	r.applied(config(addr, "less"), 2)
	found := failedApply(reload.ModeReload)
	first.Close()
	if found[0].StillInUse() || !found[1].StillInUse() {
		t.Errorf("only %s is free now: %+v", one, found)
	}
	second.Close()
	r.applied(config(addr, "less"), 4)
	r.applied(more, 5)
}

func TestAnAddressTakenWhileHAProxyWasDownIsReported(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	// A haproxy that starts only when it may.
	dir := t.TempDir()
	script, wait := filepath.Join(dir, "haproxy"), filepath.Join(dir, "wait")
	text := fmt.Sprintf("#!/bin/sh\ncase \" $* \" in *' -W '*) while [ -e %s ]; do sleep 0.02; done;; esac\nexec %s \"$@\"\n", wait, h.Path)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	addr, second := testkit.FreeAddr(t), testkit.FreeAddr(t)
	r := start(t, testkit.HAProxy{Version: h.Version, Path: script}, reload.Options{})
	s := r.applied(config(addr, "more", "    bind "+second), 1)
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
	// The Manager cannot start it, signals that, and the caller learns from Apply why.
	s = r.until("a failed start", func(s reload.Status) bool { return last(s).Outcome == reload.Failed })
	if !strings.Contains(last(s).Reason, second) {
		t.Errorf("got %+v, want %s in use", last(s), second)
	}
	r.applied(config(addr, "less"), 2)
	r.serves(addr, "less")
}
