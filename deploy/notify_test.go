package deploy_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nuncio/internal/testkit"
)

// manager receives what a service sends to systemd's notification socket.
type manager struct {
	conn *net.UnixConn
	mu   sync.Mutex
	got  []string
}

func listenAsManager(t *testing.T) (m *manager, path string) {
	t.Helper()
	// The path of a Unix socket has at most 107 bytes; t.TempDir may be longer.
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	m = &manager{conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return // closed by the clean-up
			}
			m.mu.Lock()
			m.got = append(m.got, strings.Split(string(buf[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
		os.RemoveAll(dir)
	})
	return m, path
}

func (m *manager) count(line string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, have := range m.got {
		if have == line || strings.HasSuffix(line, "*") && strings.HasPrefix(have, strings.TrimSuffix(line, "*")) {
			n++
		}
	}
	return n
}

// underSystemd is "nuncio run" with a notification socket.
type underSystemd struct {
	*manager
	t           *testing.T
	cmd         *exec.Cmd
	ended       chan struct{}
	err         error // how it ended
	bind, admin string
}

func startUnderSystemd(t *testing.T, nuncio, endpoint string) *underSystemd {
	t.Helper()
	manager, socket := listenAsManager(t)
	u := &underSystemd{manager: manager, t: t, ended: make(chan struct{}), bind: testkit.FreeAddr(t), admin: testkit.FreeAddr(t)}
	state := t.TempDir()
	u.cmd = exec.Command(nuncio, "run", "--etcd-endpoints="+endpoint, "--haproxy="+testkit.OneHAProxy(t).Path, "--state-dir="+state,
		"--admin-listen="+u.admin, "--set=http.bind="+u.bind, "--set=metrics.bind=off", "--start-wait=100ms")
	u.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=600000")
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it ends HAProxy too
	var log strings.Builder
	u.cmd.Stderr, u.cmd.Stdout = &log, io.Discard
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(u.ended)
		u.err = u.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = u.cmd.Process.Kill() // it has ended already when the test passed
		<-u.ended
		testkit.KillHAProxyOf(t, state)
		if t.Failed() {
			t.Logf("systemd was told: %q\nlog:\n%s", u.got, log.String())
		}
	})
	return u
}

func (u *underSystemd) eventually(check func() error) {
	u.t.Helper()
	testkit.Eventually(u.t, patience, check)
}

// TestSystemdIsNotified wants READY=1 when a configuration from etcd serves, not before, and WATCHDOG=1 from the start.
func TestSystemdIsNotified(t *testing.T) {
	t.Parallel()
	nuncio := testkit.Program(t, "nuncio")
	store := testkit.StartEtcd(t)
	web := testkit.StartWeb(t, "one", "")
	store.Put("/services/web/a", web.Addr)
	store.Kill()

	u := startUnderSystemd(t, nuncio, store.Endpoint)
	u.eventually(func() error {
		if signs, waits := u.count("WATCHDOG=1"), u.count("STATUS=waiting*"); signs < 3 || waits == 0 {
			return fmt.Errorf("%d signs of life and %d words of waiting while etcd is away", signs, waits)
		}
		return nil
	})
	if n := u.count("READY=1"); n != 0 {
		t.Errorf("ready %d times while etcd is away", n)
	}
	if err := health(nuncio, u.admin); err != nil {
		t.Errorf("alive while etcd is away: %v, want yes", err)
	}
	if err := health(nuncio, u.admin, "--ready"); err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("ready while etcd is away: %v, want no because of etcd", err)
	}

	store.Start()
	u.eventually(func() error {
		if u.count("READY=1") == 0 {
			return errors.New("not ready")
		}
		return nil
	})
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Get("http://" + u.bind + "/")
	if err != nil {
		t.Errorf("ready, but HAProxy does not answer: %v", err)
	} else {
		resp.Body.Close()
	}
	if err := health(nuncio, u.admin, "--ready"); err != nil {
		t.Errorf("ready by systemd's word, but not by its own: %v", err)
	}

	if err := u.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-u.ended
	if u.err != nil {
		t.Errorf("after TERM: %v, want exit code 0", u.err)
	}
	if ready, stopping := u.count("READY=1"), u.count("STOPPING=1"); ready != 1 || stopping != 1 {
		t.Errorf("ready %d times, stopping %d times; want each once", ready, stopping)
	}
	if err := health(nuncio, u.admin); err == nil {
		t.Error("alive after its end")
	}
}

// health runs the command that images have for HEALTHCHECK.
func health(nuncio, admin string, args ...string) error {
	out, err := exec.Command(nuncio, append([]string{"health", "--admin-listen=" + admin}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}
