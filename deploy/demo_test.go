package deploy_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// demo is "make demo" with addresses and a directory of its own.
type demo struct {
	cmd      *exec.Cmd
	dir      string
	http     string
	settings []string
	addrs    []string
	output   syncBuffer
	ended    chan struct{}
	err      error // how it ended
}

// syncBuffer collects output that is read while it still grows.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newDemo(t *testing.T) *demo {
	t.Helper()
	testkit.Program(t, "nuncio") // so that make has nothing left to build
	d := &demo{dir: filepath.Join(t.TempDir(), "demo"), ended: make(chan struct{})}
	for _, name := range []string{"DEMO_HTTP", "DEMO_ETCD", "DEMO_ADMIN", "DEMO_STATS"} {
		addr := testkit.FreeAddr(t)
		d.addrs, d.settings = append(d.addrs, addr), append(d.settings, name+"="+addr)
	}
	d.http = d.addrs[0]
	first := consecutivePorts(t, 3)
	for i := range 3 {
		d.addrs = append(d.addrs, fmt.Sprintf("127.0.0.1:%d", first+i))
	}
	d.settings = append(d.settings, fmt.Sprintf("DEMO_APACHE_PORT=%d", first), "DEMO_DIR="+d.dir)
	return d
}

// consecutivePorts returns the first of n free ports in a row.
func consecutivePorts(t *testing.T, n int) int {
	t.Helper()
	row, last := 0, 0
	for range 500 {
		port, err := strconv.Atoi(freePort(t))
		if err != nil {
			t.Fatal(err)
		}
		if port != last+1 {
			row = 0
		}
		if row, last = row+1, port; row == n {
			return port - n + 1
		}
	}
	t.Fatalf("no %d free ports in a row", n)
	return 0
}

// start runs it in a process group of its own, as a shell does, so that it can get a Ctrl-C.
func (d *demo) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.Command("make", append([]string{"demo", "BUILD=" + filepath.Dir(testkit.Program(t, "nuncio")), "TOOLS=build/tools", "VERSION=test"}, d.settings...)...)
	d.cmd.Dir = testkit.Root()
	d.cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "MAKEFLAGS=", "MAKEOVERRIDES=", "MFLAGS=")
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.ended)
		d.err = d.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) // all have ended already when the test passed
		<-d.ended
		if t.Failed() {
			t.Logf("make demo:\n%s", d.output.String())
		}
	})
}

// TestDemoRunsUntilCtrlC runs "make demo" as the README says, and wants its pages and then nothing to be left of it.
func TestDemoRunsUntilCtrlC(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	d.start(t)
	testkit.Eventually(t, 2*patience, func() error {
		select {
		case <-d.ended:
			return fmt.Errorf("it ended: %w", d.err)
		default:
		}
		if !strings.Contains(d.output.String(), "Ctrl-C ends it.") {
			return errors.New("it does not say yet that it runs")
		}
		return nil
	})
	var pages []string
	testkit.Eventually(t, patience, func() error {
		page, err := testkit.Get("http://" + d.http + "/")
		if err == nil && !slices.Contains(pages, page) {
			pages = append(pages, page)
		}
		if len(pages) < 2 {
			return fmt.Errorf("pages %q, %w; want one from each of two Apaches", pages, err)
		}
		return nil
	})
	slices.Sort(pages)
	if want := []string{"Running from Apache web-1\n", "Running from Apache web-2\n"}; !slices.Equal(pages, want) {
		t.Errorf("pages %q, want %q", pages, want)
	}

	// Ctrl-C in a terminal signals the whole group.
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.ended:
	case <-time.After(patience):
		t.Fatal("it still runs after Ctrl-C")
	}
	testkit.Eventually(t, 10*time.Second, func() error {
		if err := syscall.Kill(-d.cmd.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("processes of the demo are left (%w)", err)
		}
		return nil
	})
	for _, addr := range d.addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("after the demo: %v", err)
			continue
		}
		l.Close()
	}
	if text := d.output.String(); strings.Contains(text, "something went wrong") {
		t.Errorf("Ctrl-C is taken for a failure:\n%s", text)
	}
}

// TestDemoNamesPortsInUse wants the demo to end before it writes anything, with the setting that moves each port.
func TestDemoNamesPortsInUse(t *testing.T) {
	t.Parallel()
	d := newDemo(t)
	for _, addr := range d.addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	d.start(t)
	select {
	case <-d.ended:
	case <-time.After(2 * patience):
		t.Fatal("it runs although every port is in use")
	}
	if d.err == nil {
		t.Error("it ended with success although every port is in use")
	}
	for i, name := range []string{"DEMO_HTTP", "DEMO_ETCD", "DEMO_ADMIN", "DEMO_STATS", "DEMO_APACHE_PORT", "DEMO_APACHE_PORT", "DEMO_APACHE_PORT"} {
		if want := d.addrs[i] + " is in use: set " + name; !strings.Contains(d.output.String(), want) {
			t.Errorf("output without %q:\n%s", want, d.output.String())
		}
	}
	if _, err := os.Stat(d.dir); !os.IsNotExist(err) {
		t.Errorf("it wrote %s before it looked at the ports: %v", d.dir, err)
	}
}
