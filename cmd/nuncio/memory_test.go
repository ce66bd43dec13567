package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// startTenThousand runs nuncio as it is shipped, without the race detector, and HAProxy for 10,000 instances in a control
// group, as in a container.
func startTenThousand(t *testing.T, h testkit.HAProxy, group string) *env {
	t.Helper()
	program := testkit.Program(t, "nuncio")
	e := newEnv(t, h)
	e.shipped("metrics.bind=off;maxconn=500")
	e.putAll(10000, func(i int) (key, value string) {
		return fmt.Sprintf("s%03d/i%04d", i/100, i), fmt.Sprintf(`{"host":"127.0.0.1","port":%d,"state":"maint","meta":{"http.host":"s%d.example.com"}}`, 1000+i, i/100)
	})
	e.put("web/a", e.webs[0].Addr)
	// The shell joins the group, then becomes nuncio.
	e.process = exec.Command("sh", append([]string{"-c", `echo $$ > "$0" && exec "$@"`, filepath.Join(group, "cgroup.procs"), program}, e.args...)...)
	e.process.Stdout, e.process.Stderr = e.log, e.log
	if err := e.process.Start(); err != nil {
		t.Fatal(err)
	}
	return e
}

// answers waits until a web server answers through HAProxy.
func (e *env) answers(want string) {
	e.t.Helper()
	testkit.Eventually(e.t, 60*time.Second, func() error {
		got, err := e.get()
		if err == nil && got != want {
			err = fmt.Errorf("%q answers, want %q", got, want)
		}
		return err
	})
}

// haproxyLived fails the test if nuncio has restarted HAProxy.
func (e *env) haproxyLived() {
	e.t.Helper()
	if text, err := os.ReadFile(e.log.Name()); err != nil || strings.Contains(string(text), "haproxy exited unexpectedly") {
		e.t.Errorf("haproxy exited on the way, or the log is gone: %v", err)
	}
}

// TestTenThousandInstancesIn192MiB goes through a start, changes and reloads. 128 MiB are not enough: HAProxy 3.0 needs
// about 55 for each of "haproxy -c" and the worker, and nuncio 50 to 80.
func TestTenThousandInstancesIn192MiB(t *testing.T) {
	t.Parallel()
	group, _ := memoryGroup(t, 192<<20)
	e := startTenThousand(t, testkit.OneHAProxy(t), group)
	for i := range 12 {
		e.put("web/a", e.webs[i%2].Addr)
		e.put(fmt.Sprintf("new%d/a", i), `{"host":"127.0.0.1","port":9,"meta":{"http.host":"new.example.com"}}`) // a reload
		e.answers(fmt.Sprintf("web%d", i%2))
	}
	most, err := os.ReadFile(filepath.Join(group, "memory.max_usage_in_bytes"))
	if err != nil {
		most, err = os.ReadFile(filepath.Join(group, "memory.peak"))
	}
	if err != nil {
		t.Fatal(err)
	}
	peak, _ := strconv.Atoi(strings.TrimSpace(string(most))) // the kernel writes a number
	u, err := e.usage()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("at most %d MiB of memory and page cache, of which nuncio %d MiB at the end", peak>>20, u.rss)
	e.haproxyLived()
}

// TestMemoryRunsOut lowers the limit until "haproxy -c" exceeds it. The kernel must kill that process, and not HAProxy or
// nuncio.
func TestMemoryRunsOut(t *testing.T) {
	t.Parallel()
	h := testkit.OneHAProxy(t)
	group, limit := memoryGroup(t, 512<<20)
	e := startTenThousand(t, h, group)
	e.answers("web0")
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("running") })
	narrow := resident(t, group) + 20<<20 // a check needs about twice that
	if err := os.WriteFile(limit, []byte(strconv.Itoa(narrow)), 0o644); err != nil {
		t.Fatal(err)
	}
	load := testkit.StartLoad("http://" + e.http + "/")
	e.put("new/a", `{"host":"127.0.0.1","port":9,"meta":{"http.host":"new.example.com"}}`) // wants a reload
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("raise the memory limit") })
	e.put("web/a", e.webs[1].Addr)
	if err := os.WriteFile(limit, []byte(strconv.Itoa(512<<20)), 0o644); err != nil {
		t.Fatal(err)
	}
	e.answers("web1")
	testkit.Eventually(t, 60*time.Second, func() error { return e.ready("running") })
	if r := load.Stop(); r.Done == 0 || r.Failed > 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Done+r.Failed, r.First)
	}
	e.haproxyLived()
}

// resident returns the bytes of a group that the kernel cannot reclaim, and those of mapped files.
func resident(t *testing.T, group string) (bytes int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(group, "memory.stat"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name {
		case "rss", "mapped_file", "anon", "file_mapped": // version 1, version 2
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			bytes += n
		}
	}
	return bytes
}

// memoryGroups numbers the groups of this process.
var memoryGroups atomic.Int64

// memoryGroup creates a control group, of version 1 or 2, with a limit in bytes. It returns the group and the limit's file.
func memoryGroup(t *testing.T, bytes int) (group, limit string) {
	t.Helper()
	for _, kind := range []struct{ root, file string }{{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, {"/sys/fs/cgroup", "memory.max"}} {
		dir := filepath.Join(kind.root, fmt.Sprintf("nuncio-test-%d-%d", os.Getpid(), memoryGroups.Add(1)))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		limit := filepath.Join(dir, kind.file)
		// The kernel creates the file; if it does not, this is an ordinary directory.
		if _, err := os.Stat(limit); err == nil && os.WriteFile(limit, []byte(strconv.Itoa(bytes)), 0) == nil {
			t.Cleanup(func() { testkit.Eventually(t, 10*time.Second, func() error { return os.Remove(dir) }) })
			return dir, limit
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
		t.Fatal("no control group with a memory limit can be created, and NUNCIO_TEST_STRICT=1: run this as root")
	}
	t.Skip("this test needs to create a control group with a memory limit")
	return "", ""
}
