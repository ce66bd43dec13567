package reload_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// crashingNuncio is nuncio in a process of its own. It applies "old", then "new", and kills itself at a step of the second
// apply or of what follows from it.
func crashingNuncio() {
	at, addr := os.Getenv("RELOAD_TEST_STEP"), os.Getenv("RELOAD_TEST_ADDR")
	var applied atomic.Bool // the first one; files are saved by a different goroutine
	step := func(name string) {
		if name == at && applied.Load() {
			body, err := get(addr)
			fmt.Fprintf(os.Stderr, "killed while %q is served, %v\n", body, err)
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // until it arrives
		}
		if name == "prune" {
			applied.Store(true)
		}
	}
	m, err := reload.New(reload.Options{
		HAProxy: os.Getenv("RELOAD_TEST_HAPROXY"), StateDir: os.Getenv("RELOAD_TEST_STATE"), StartWait: time.Hour, Step: step,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for i, body := range []string{"old", "new"} {
			files := config(addr, body)
			if server := os.Getenv("RELOAD_TEST_" + strings.ToUpper(body)); server != "" {
				files = pool(addr, line("s", server, 1, ""))
			}
			if os.Getenv("RELOAD_TEST_MAP") != "" {
				files = mapped(addr, body)
			}
			_, _ = m.Apply(context.Background(), reload.Desired{Files: files, Revision: int64(i + 1)})
		}
	}()
	fmt.Fprintln(os.Stderr, m.Run(context.Background()))
	os.Exit(1)
}

// mapped answers with body, which is in a map: a change by commands that the comparison of servers does not see.
func mapped(addr, body string) haproxy.Files {
	return files(map[string]string{"maps/bodies.map": "any " + body + "\n", "haproxy.cfg": head + `
frontend front
    bind ` + addr + `
    http-request return status 200 content-type text/plain lf-string %[str(any),map(maps/bodies.map)]
`})
}

// crash runs a crashingNuncio to its end. Its haproxy serves on.
func crash(t *testing.T, h testkit.HAProxy, dir, addr, step string, env ...string) (log string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "RELOAD_TEST_STATE="+dir, "RELOAD_TEST_STEP="+step, "RELOAD_TEST_ADDR="+addr, "RELOAD_TEST_HAPROXY="+h.Path)
	cmd.Env = append(cmd.Env, env...)
	out := &syncBuffer{}
	cmd.Stderr = out
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("nuncio was not killed: %v\n%s", err, out.String())
	}
	t.Cleanup(func() { testkit.KillHAProxyOf(t, dir) })
	return out.String()
}

// restarted is a nuncio without a call of Apply, on the state directory of one that was killed together with its haproxy, as
// everything in a container is.
func restarted(t *testing.T, h testkit.HAProxy, dir, addr, want string) *harness {
	t.Helper()
	testkit.KillHAProxyOf(t, dir)
	if body, err := get(addr); err == nil {
		t.Fatalf("a haproxy still answers %q", body)
	}
	r := start(t, h, reload.Options{StateDir: dir, StartWait: time.Millisecond})
	r.serves(addr, want)
	if s := r.Status(); s.Ready {
		t.Errorf("ready without an Apply: %+v", s)
	}
	all, err := reload.Generations(dir)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir + "/generations")
	if err != nil || len(entries) != len(all) {
		t.Errorf("%d directories, %d generations, %v: leftovers of the crash", len(entries), len(all), err)
	}
	return r
}

func TestCrashBetweenAnyTwoStepsLeavesOldOrNew(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	for _, c := range []struct{ step, want string }{
		{"write", "old"}, {"check", "old"}, {"bind", "old"}, {"seal", "old"}, {"swap", "old"}, {"load", "new"}, {"prune", "new"},
	} {
		t.Run(c.step, func(t *testing.T) {
			dir, addr := stateDir(t), testkit.FreeAddr(t)
			crash(t, h, dir, addr, c.step)
			r := restarted(t, h, dir, addr, c.want)
			r.applied(config(addr, "after"), 3)
			r.serves(addr, "after")
		})
	}
}

// A change by commands is served before it is on disk. Killed in between, nuncio comes back with the generation before it, which
// was checked, and with the change as soon as the store has delivered it again.
func TestCrashBetweenAChangeByCommandsAndItsFilesLeavesOldOrNew(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	for _, c := range []struct{ step, served, want string }{
		{"runtime", "old", "old"},
		{"confirmed", "new", "old"},
		{"write", "new", "old"},
		{"check", "new", "old"},
		{"seal", "new", "old"},
		{"save swap", "new", "old"},
		{"save prune", "new", "new"},
	} {
		t.Run(c.step, func(t *testing.T) {
			dir, addr := stateDir(t), testkit.FreeAddr(t)
			before, after := testkit.StartWeb(t, "old", ""), testkit.StartWeb(t, "new", "")
			log := crash(t, h, dir, addr, c.step, "RELOAD_TEST_OLD="+before.Addr, "RELOAD_TEST_NEW="+after.Addr)
			if !strings.Contains(log, fmt.Sprintf("killed while %q is served, <nil>", c.served+"\n")) {
				t.Errorf("not killed while %s was served:\n%s", c.served, log)
			}
			r := restarted(t, h, dir, addr, c.want+"\n")
			r.applied(pool(addr, line("s", after.Addr, 1, "")), 3)
			r.serves(addr, "new\n")
		})
	}
}

// Changes that came by commands shortly before nuncio was killed serve on while the next one waits for the store: what is on
// disk may name addresses that nothing listens on any more.
func TestChangesThatAreNotOnDiskServeUntilTheStoreAnswers(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	dir, addr := stateDir(t), testkit.FreeAddr(t)
	before, now := testkit.StartWeb(t, "old", ""), testkit.StartWeb(t, "new", "")
	crash(t, h, dir, addr, "confirmed", "RELOAD_TEST_OLD="+before.Addr, "RELOAD_TEST_NEW="+now.Addr)
	r := start(t, h, reload.Options{StateDir: dir, StartWait: time.Millisecond})
	first := r.until("an adopted haproxy", func(s reload.Status) bool { return s.MasterPid != 0 })
	time.Sleep(3 * time.Second) // longer than the pause before a repair
	if body, err := get(addr); err != nil || body != "new\n" {
		t.Errorf("served without an Apply: %q, %v", body, err)
	}
	s := r.applied(pool(addr, line("s", before.Addr, 1, "")), 3)
	if body, err := get(addr); err != nil || body != "old\n" || s.WorkerPid == first.WorkerPid {
		t.Errorf("served after an Apply of what is on disk: %q, %v", body, err)
	}
}

// Killed alone, nuncio leaves a haproxy that serves on. The next one adopts it without a pause, whatever step it was at: with
// the same worker where that is known to run what is on disk, otherwise it reloads.
func TestAHAProxyOutlivesACrashAtAnyStep(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		for _, c := range []struct {
			step, served string
			change       string // by commands; of anything if it is empty
			reload       bool   // the first Apply, of what is served, takes one
		}{
			{"write", "old", "", false},
			{"swap", "old", "", false},
			{"load", "old", "", false},
			{"prune", "new", "", true}, // the new worker has not been recorded yet
			{"runtime", "old", "endpoint", false},
			{"confirmed", "new", "endpoint", true},
			{"runtime", "old", "map", false},
			{"confirmed", "new", "map", true},
			{"save swap", "new", "endpoint", true},
			{"wait", "old", "endpoint", false},
		} {
			t.Run(strings.TrimSpace(c.step+" "+c.change), func(t *testing.T) {
				t.Parallel()
				dir, addr := stateDir(t), testkit.FreeAddr(t)
				var env []string
				bodies := map[string]haproxy.Files{"old": config(addr, "old"), "new": config(addr, "new")}
				switch c.change {
				case "map":
					env = []string{"RELOAD_TEST_MAP=1"}
					for body := range bodies {
						bodies[body] = mapped(addr, body)
					}
				case "endpoint":
					for body := range bodies {
						web := testkit.StartWeb(t, body, "")
						bodies[body] = pool(addr, line("s", web.Addr, 1, ""))
						env = append(env, "RELOAD_TEST_"+strings.ToUpper(body)+"="+web.Addr)
					}
				}
				crash(t, h, dir, addr, c.step, env...)
				lost := outage(t, addr)
				r := start(t, h, reload.Options{StateDir: dir})
				before := r.until("an adopted haproxy", func(s reload.Status) bool { return s.MasterPid != 0 })
				if body, err := get(addr); err != nil || strings.TrimSpace(body) != c.served {
					t.Errorf("served after the adoption: %q, %v", body, err)
				}
				s := r.applied(bodies[c.served], 3)
				if reloaded := s.WorkerPid != before.WorkerPid; reloaded != c.reload || s.MasterPid != before.MasterPid {
					t.Errorf("want a reload: %v; got %+v", c.reload, last(s))
				}
				r.applied(bodies["new"], 4)
				if failed, done := lost(); failed != 0 || done == 0 {
					t.Errorf("%d of %d requests failed", failed, done)
				}
				if body, err := get(addr); err != nil || strings.TrimSpace(body) != "new" {
					t.Errorf("served at the end: %q, %v", body, err)
				}
			})
		}
	})
}
