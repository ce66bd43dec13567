package testkit

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Check runs "haproxy -c" on dir/haproxy.cfg from within dir, as nuncio does, and returns its output, stdout
// and stderr together, and whether it exited with 0.
func (h HAProxy) Check(t testing.TB, dir string) (output string, ok bool) {
	t.Helper()
	own, err := os.MkdirTemp("", "nuncio-own-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(own)
	// nuncio.cfg names a state file, without which HAProxy warns of "load-server-state-from-file global".
	state, config := filepath.Join(own, "state"), filepath.Join(own, "nuncio.cfg")
	for path, text := range map[string]string{state: "1\n", config: "global\n    server-state-file " + state + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(h.Path, "-c", "-f", config, "-f", "haproxy.cfg")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err == nil
}

// Start runs dir/haproxy.cfg in the foreground until the test ends, and returns once addr accepts
// connections. env is added to an otherwise empty environment.
func (h HAProxy) Start(t testing.TB, dir, addr string, env ...string) {
	t.Helper()
	var log lockedBuffer
	cmd := exec.Command(h.Path, "-db", "-f", "haproxy.cfg")
	cmd.Dir, cmd.Env = dir, append([]string{}, env...)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start haproxy: %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()         // it was killed: its status means nothing
	})
	Eventually(t, 20*time.Second, func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, log.String())
		}
		return conn.Close()
	})
}
