package reload_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestAChangeOnTheSocketIsUndoneByAReload(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{DriftInterval: 20 * time.Millisecond})
	set := pool(addr, line("a", "127.0.0.1:1", 11, "weight 100 check inter 1h"), line("b", "[::1]:1", 12, "disabled"))
	first := r.applied(set, 1)
	want := r.show("show servers state web")
	for i, command := range []string{
		"set server web/a weight 3", "set server web/a addr 127.0.0.2 port 9", "set server web/a state drain",
		"set server web/a state maint", "set server web/b state ready", "disable health web/a", "add server web/c 127.0.0.1:3",
	} {
		before := r.Status()
		r.show(command)
		ready := true
		r.until("the right number of reloads after "+command, func(s reload.Status) bool {
			ready = ready && s.Ready
			return s.State == reload.Running && s.Ready && len(s.Applies)-len(before.Applies) == 1
		})
		if !ready {
			t.Errorf("after %s: not ready although HAProxy served all the time", command)
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			got := r.show("show servers state web")
			if normal(got) != normal(want) {
				return fmt.Errorf("after %s\ngot  %s\nwant %s", command, got, want)
			}
			return nil
		})
		testkit.Eventually(t, 20*time.Second, func() error {
			if n := r.log.count("haproxy was changed from outside"); n != i+1 {
				return fmt.Errorf("%d repairs in the log, want %d", n, i+1)
			}
			return nil
		})
	}
	if first.MasterPid != r.Status().MasterPid {
		t.Error("haproxy was started again")
	}
}

// normal leaves out of "show servers state" what time changes.
func normal(state string) string {
	servers, err := haproxy.ParseServers(state)
	if err != nil {
		return err.Error()
	}
	for i := range servers {
		servers[i].Admin &= haproxy.AdminMaint | haproxy.AdminDrain
		servers[i].Check &= haproxy.CheckEnabled
	}
	return fmt.Sprint(servers)
}

func TestAReloadFromOutsideIsNoticed(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
		r := start(t, h, reload.Options{})
		first := r.applied(pool(addr, line("a", one.Addr, 11, "")), 1)
		kill(t, first.MasterPid, syscall.SIGUSR2)
		testkit.Eventually(t, 20*time.Second, func() error {
			// Both workers answer until the old one has gone: it shares the socket with the new one, and rejects changes at the end.
			if err := syscall.Kill(first.WorkerPid, 0); err == nil {
				return fmt.Errorf("the old worker is still there")
			}
			return nil
		})
		s := r.applied(pool(addr, line("b", two.Addr, 12, "")), 2)
		if a := last(s); a.Mode != reload.ModeReload || !strings.Contains(a.Reason, "something else has reloaded haproxy") {
			t.Errorf("%+v", a)
		}
		r.serves(addr, "two\n")
		if a := last(r.applied(pool(addr, line("b", one.Addr, 12, "")), 3)); a.Mode != reload.ModeRuntime {
			t.Errorf("the next change: %+v", a)
		}
	})
}

// strict is a haproxy program whose "-c" also rejects files that contain a word.
func strict(t *testing.T, h testkit.HAProxy, word string) testkit.HAProxy {
	t.Helper()
	path := filepath.Join(stateDir(t), "haproxy")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = -c ]; then\n  for f; do :; done\n  if grep -q %s \"$f\"; then echo '[ALERT] (1) : config : strict' >&2; exit 1; fi\nfi\nexec %s \"$@\"\n",
		word, h.Path)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return testkit.HAProxy{Version: h.Version, Path: path}
}

func TestAChangeThatTheCheckRejectsAfterwardsIsReverted(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	r := start(t, strict(t, h, "forbidden"), reload.Options{})
	r.applied(pool(addr, line("a", one.Addr, 11, "")), 1)
	r.submit(pool(addr, line("forbidden", two.Addr, 12, "")), 2)
	r.until("a rejection", func(s reload.Status) bool { return last(s).Outcome == reload.Rejected && s.State == reload.Degraded })
	if s := r.Status(); !strings.Contains(s.LastError, "strict") || !s.Ready {
		t.Errorf("%+v", s)
	}
	r.serves(addr, "one\n")
	if state := r.show("show servers state web"); strings.Contains(state, "forbidden") || !onDisk(r.dir, "server a ") {
		t.Errorf("the rejected server is still there:\n%s", state)
	}
	r.applied(pool(addr, line("b", two.Addr, 13, "")), 3)
	r.serves(addr, "two\n")
}

// errorPage is a set of files that HAProxy takes as long as a page beside them exists, and how to make that.
func errorPage(t *testing.T, addr string) (path string, restore func(), set func(servers ...string) haproxy.Files) {
	t.Helper()
	path = filepath.Join(stateDir(t), "e.http")
	restore = func() {
		t.Helper()
		if err := os.WriteFile(path, []byte("HTTP/1.0 503 No\r\nContent-Length: 0\r\n\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path, restore, func(servers ...string) haproxy.Files {
		return cfg(strings.Replace(string(pool(addr, servers...).Config()), "default_backend", "errorfile 503 "+path+"\n    default_backend", 1))
	}
}

func TestAMissingFileOutsideDoesNotRevertChanges(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	page, save, set := errorPage(t, addr)
	save()
	one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	r := start(t, h, reload.Options{})
	first := r.applied(set(line("a", one.Addr, 11, "")), 1)
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	r.submit(set(line("b", two.Addr, 12, "")), 2)
	r.until("degraded", func(s reload.Status) bool {
		return s.State == reload.Degraded && strings.Contains(s.LastError, "cannot be saved") && s.AppliedRevision == 2
	})
	r.submit(set(line("c", two.Addr, 13, "")), 3)
	s := r.until("revision 3", func(s reload.Status) bool { return s.AppliedRevision == 3 })
	if s.WorkerPid != first.WorkerPid || !s.Ready {
		t.Errorf("%+v", s)
	}
	r.serves(addr, "two\n")
	save()
	s = r.until("running", func(s reload.Status) bool { return s.State == reload.Running && onDisk(r.dir, "server c ") })
	if s.LastError != "" {
		t.Errorf("%+v", s)
	}
}

// An apply that fails in between ends the pause before the next attempt to save, and must not end the attempts.
func TestAFailedSaveIsRetriedAfterAFailedApply(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	page, save, set := errorPage(t, testkit.FreeAddr(t))
	save()
	r := start(t, h, reload.Options{VerifyInterval: 20 * time.Millisecond})
	r.applied(set(line("a", "127.0.0.1:1", 11, "")), 1)
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	live := set(line("b", "127.0.0.1:1", 12, ""))
	r.submit(live, 2)
	r.until("a failed save", func(s reload.Status) bool { return strings.Contains(s.LastError, "cannot be saved") })
	r.submit(config(testkit.FreeAddr(t), "broken", "    frobnicate"), 3)
	r.until("a failed apply", func(s reload.Status) bool { return last(s).Revision == 3 && last(s).Outcome == reload.Rejected })
	save()
	r.submit(live, 4)
	r.until("the change on disk", func(s reload.Status) bool {
		return s.State == reload.Running && s.LastError == "" && onDisk(r.dir, "server b ")
	})
}

func TestAHAProxyKilledBeforeItsFilesAreSavedStartsWithThem(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
	r := start(t, h, reload.Options{})
	first := r.applied(pool(addr, line("a", one.Addr, 11, "")), 1)
	s := r.applied(pool(addr, line("b", two.Addr, 12, "")), 2)
	if onDisk(r.dir, "server b ") {
		t.Log("the files were saved before haproxy could be killed")
	}
	kill(t, s.WorkerPid, syscall.SIGKILL)
	s = r.until("a restart", func(s reload.Status) bool { return s.Restarts == 1 && s.State == reload.Running })
	if got, err := get(addr); err != nil || got != "two\n" || s.WorkerPid == first.WorkerPid || !onDisk(r.dir, "server b ") {
		t.Errorf("got %q, %v, %+v", got, err, s)
	}
	if a := last(r.applied(pool(addr, line("b", one.Addr, 12, "")), 3)); a.Mode != reload.ModeRuntime {
		t.Errorf("the next change: %+v", a)
	}
}

func TestStopSavesTheLastChange(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{})
	r.applied(pool(addr, line("a", "127.0.0.1:1", 11, "")), 1)
	r.applied(pool(addr, line("b", "127.0.0.1:1", 12, "")), 2)
	if err := r.end(); err != nil || !onDisk(r.dir, "server b ") {
		t.Errorf("Run: %v; the last change is on disk: %v", err, onDisk(r.dir, "server b "))
	}
}
