package reload_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// handOver makes a Manager leave its haproxy to the next one.
func (r *harness) handOver() {
	r.t.Helper()
	r.t.Cleanup(func() { testkit.KillHAProxyOf(r.t, r.dir) }) // of a test that fails before the next one has it
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := r.HandOver(ctx); err != nil {
		r.t.Fatalf("hand over: %v", err)
	}
	if err := r.wait(); err != nil {
		r.t.Fatalf("Run: %v", err)
	}
	r.stop()
}

// next is a Manager on the state directory of one that has left.
func (r *harness) next(h testkit.HAProxy) *harness {
	r.t.Helper()
	return start(r.t, h, reload.Options{StateDir: r.dir})
}

// The next nuncio finds what runs, changes it by commands, reloads it, sees it die and drains it, as if it had started it.
func TestTheNextNuncioAdoptsTheHAProxyThatRuns(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, one, two := testkit.FreeAddr(t), testkit.StartWeb(t, "one", "").Addr, testkit.StartWeb(t, "two", "").Addr
		r := start(t, h, reload.Options{})
		r.applied(pool(addr, line("a", one, 1, ""), line("b", two, 2, "")), 1)
		lost := outage(t, addr)
		// A leaving server, which the next nuncio has to know as one, and an endpoint that has moved by commands.
		before := r.applied(pool(addr, line("a", two, 1, "")), 2)
		r.handOver()
		r = r.next(h)
		s := r.until("an adopted haproxy", func(s reload.Status) bool { return s.MasterPid != 0 })
		if s.MasterPid != before.MasterPid || s.WorkerPid != before.WorkerPid || s.Ready || s.State != reload.Waiting || s.AppliedRevision != 2 {
			t.Errorf("before %+v\nafter %+v", before, s)
		}
		s = r.applied(pool(addr, line("a", two, 1, "")), 3)
		if got := last(s); got.Outcome != reload.Unchanged || !s.Ready {
			t.Errorf("the same files: %+v, ready %v", got, s.Ready)
		}
		s = r.applied(pool(addr, line("a", one, 1, "")), 4)
		if got := last(s); got.Outcome != reload.Runtime || s.WorkerPid != before.WorkerPid {
			t.Errorf("an endpoint: %+v", got)
		}
		r.handOver()
		r = r.next(h)
		s = r.applied(pool(addr, line("a", two, 1, ""), line("c", one, 7, "")), 5)
		if s.WorkerPid != before.WorkerPid {
			t.Errorf("a second adoption: %+v", last(s))
		}
		s = r.applied(config(addr, "three"), 6)
		if got := last(s); got.Outcome != reload.Reloaded || s.MasterPid != before.MasterPid {
			t.Errorf("a reload: %+v", got)
		}
		if failed, done := lost(); failed != 0 || done == 0 {
			t.Errorf("%d of %d requests failed", failed, done)
		}
		r.handOver()
		r = r.next(h)
		s = r.applied(config(addr, "three"), 7)
		kill(t, s.MasterPid, syscall.SIGKILL)
		r.until("a restart", func(s reload.Status) bool { return s.Restarts == 1 && s.State == reload.Running })
		r.serves(addr, "three")
		if err := r.end(); err != nil {
			t.Errorf("a drain: %v", err)
		}
		if _, err := get(addr); err == nil {
			t.Error("haproxy outlives the drain")
		}
	})
}

// What cannot be proven is not adopted: nothing of it is left, and HAProxy is started.
func TestWhatCannotBeProvenIsNotAdopted(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	for _, c := range []struct {
		name, why string
		spoil     func(t *testing.T, r *harness) reload.Options
	}{
		{"other arguments", "other arguments", func(t *testing.T, r *harness) reload.Options {
			program := filepath.Join(stateDir(t), "haproxy")
			if err := os.Symlink(h.Path, program); err != nil {
				t.Fatal(err)
			}
			return reload.Options{HAProxy: program}
		}},
		{"a record that does not parse", "record", func(t *testing.T, r *harness) reload.Options {
			if err := os.WriteFile(filepath.Join(r.dir, "run/haproxy.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
			return reload.Options{}
		}},
		{"a generation that is gone", "generation", func(t *testing.T, r *harness) reload.Options {
			if err := os.RemoveAll(filepath.Join(r.dir, "generations")); err != nil {
				t.Fatal(err)
			}
			return reload.Options{}
		}},
		{"no record of one that answers", "", func(t *testing.T, r *harness) reload.Options {
			if err := os.Remove(filepath.Join(r.dir, "run/haproxy.json")); err != nil {
				t.Fatal(err)
			}
			return reload.Options{}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := testkit.FreeAddr(t)
			r := start(t, h, reload.Options{})
			before := r.applied(config(addr, "one"), 1)
			r.handOver()
			opts := c.spoil(t, r)
			opts.StateDir = r.dir
			next := start(t, h, opts)
			s := next.applied(config(addr, "two"), 2)
			next.serves(addr, "two")
			if s.MasterPid == before.MasterPid || last(s).Outcome != reload.Started {
				t.Errorf("adopted: %+v", last(s))
			}
			if err := syscall.Kill(before.MasterPid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the earlier haproxy: %v", err)
			}
			if !strings.Contains(next.log.String(), "ending a haproxy that an earlier nuncio left running") ||
				c.why != "" && !strings.Contains(next.log.String(), c.why) {
				t.Error("the log does not say why")
			}
		})
	}
}

// A reload makes the master execute its program anew, so a new version takes over without a lost request. nuncio knows
// afterwards which version it has to do with.
func TestTheNextNuncioMakesHAProxyRunItsNewVersion(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	if len(all) < 2 {
		t.Skip("needs two versions of HAProxy")
	}
	old, newer := all[0], all[len(all)-1]
	program, addr := filepath.Join(stateDir(t), "haproxy"), testkit.FreeAddr(t)
	if err := os.Symlink(old.Path, program); err != nil {
		t.Fatal(err)
	}
	r := start(t, old, reload.Options{HAProxy: program})
	files := config(addr, "one", "    option idle-close-on-response")
	before := r.applied(files, 1)
	lost := outage(t, addr)
	if err := errors.Join(os.Symlink(newer.Path, program+".new"), os.Rename(program+".new", program)); err != nil {
		t.Fatal(err)
	}
	r.handOver()
	r = start(t, newer, reload.Options{HAProxy: program, StateDir: r.dir})
	s := r.applied(files, 2)
	if got := last(s); got.Outcome != reload.Reloaded || s.MasterPid != before.MasterPid || !strings.HasPrefix(s.Version, newer.Version) {
		t.Errorf("from %s to %s: version %s, %+v", old.Version, newer.Version, s.Version, got)
	}
	if failed, done := lost(); failed != 0 || done == 0 {
		t.Errorf("%d of %d requests failed", failed, done)
	}
	// The worker's own word: adopted again, it is of the version that nuncio expects.
	r.handOver()
	r = start(t, newer, reload.Options{HAProxy: program, StateDir: r.dir})
	if again := r.applied(files, 3); last(again).Outcome != reload.Unchanged || again.WorkerPid != s.WorkerPid {
		t.Errorf("adopted again: %+v", last(again))
	}
}

// Files beside the sockets may be removed: the record comes back, and HAProxy's output is read without its name.
func TestAHAProxyIsAdoptedWhoseFilesWereRemoved(t *testing.T) {
	t.Parallel()
	h := testkit.HAProxies(t)[0]
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{VerifyInterval: 20 * time.Millisecond})
	before := r.applied(config(addr, "one"), 1)
	record := filepath.Join(r.dir, "run/haproxy.json")
	if err := errors.Join(os.Remove(record), os.Remove(filepath.Join(r.dir, "run/output"))); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, 20*time.Second, func() error { _, err := os.Stat(record); return err })
	r.handOver()
	r = r.next(h)
	if s := r.applied(config(addr, "one"), 2); s.WorkerPid != before.WorkerPid {
		t.Errorf("not adopted: %+v", last(s))
	}
	kill(t, before.WorkerPid, syscall.SIGKILL)
	testkit.Eventually(t, 20*time.Second, func() error {
		if r.log.count("exited with code 137") == 0 {
			return errors.New("what HAProxy says is not logged")
		}
		return nil
	})
}

// While no nuncio reads what HAProxy prints, HAProxy must neither wait nor fail, and the next nuncio logs what the kernel has kept.
func TestHAProxyPrintsWithoutAReader(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		logged := haproxyLog(addr)
		r := start(t, h, reload.Options{})
		before := r.applied(logged, 1)
		r.handOver()
		// Each request is a line of about 200 bytes, so these do not fit into the pipe.
		client := http.Client{Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		for i := range 600 {
			resp, err := client.Get(fmt.Sprintf("http://%s/silent-%d-%s", addr, i, strings.Repeat("x", 150)))
			if err != nil {
				t.Fatalf("request %d: %v", i, err)
			}
			resp.Body.Close()
		}
		r = r.next(h)
		if s := r.applied(logged, 2); s.WorkerPid != before.WorkerPid {
			t.Errorf("not adopted: %+v", last(s))
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			if _, err := get(addr); err != nil {
				return err
			}
			if r.log.count("silent-0-") != 1 || r.log.count("GET / ") == 0 {
				return fmt.Errorf("the log has the first line from without a reader %d times, and %d from now", r.log.count("silent-0-"), r.log.count("GET / "))
			}
			return nil
		})
	})
}

// haproxyLog answers, and writes a line for each request.
func haproxyLog(addr string) haproxy.Files {
	return cfg(head + `
    option httplog
frontend front
    bind ` + addr + `
    log stdout format raw daemon
    http-request return status 200 content-type text/plain string ok
`)
}

// A worker that has taken a change which cannot be saved when nuncio leaves is not taken for one that runs what is on disk.
func TestAChangeThatCannotBeSavedAtTheEndIsNotLost(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	addr := testkit.FreeAddr(t)
	page := filepath.Join(stateDir(t), "503.http")
	write := func() {
		if err := os.WriteFile(page, []byte("HTTP/1.0 503 No\r\n\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write()
	text := head + " errorfile 503 " + page + "\nfrontend front\n bind " + addr + "\n" +
		" http-request return status 200 content-type text/plain lf-string %[path,map(maps/m.map,none)]\n"
	set := func(m string) haproxy.Files {
		return files(map[string]string{"haproxy.cfg": text, "maps/m.map": m})
	}
	r := start(t, h, reload.Options{SaveInterval: time.Hour})
	r.applied(set("/ one\n"), 1)
	if a := last(r.applied(set("/ two\n"), 2)); a.Mode != reload.ModeRuntime {
		t.Fatalf("got %+v", a)
	}
	if err := os.Remove(page); err != nil {
		t.Fatal(err)
	}
	r.handOver()
	write()
	r = r.next(h)
	r.applied(set("/ one\n"), 3) // as on disk
	r.serves(addr, "one")
}
