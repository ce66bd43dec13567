package haproxy_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// sockets starts a haproxy with both of its command sockets.
func sockets(t *testing.T, h testkit.HAProxy) (master, runtime haproxy.Socket) {
	t.Helper()
	dir := shortDir(t)
	cfg, m, r := filepath.Join(dir, "haproxy.cfg"), filepath.Join(dir, "m"), filepath.Join(dir, "r")
	text := "global\n stats socket " + r + " level admin\ndefaults\n mode http\n timeout client 1s\n timeout server 1s\n timeout connect 1s\n" +
		"backend be\n balance roundrobin\n server a 127.0.0.1:1\nfrontend f\n bind " + testkit.FreeAddr(t) + "\n default_backend be\n"
	if err := os.WriteFile(cfg, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(h.Path, "-W", "-db", "-S", m+",level,admin", "-f", cfg)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	master, runtime = haproxy.MasterSocket(m, 20*time.Second), haproxy.RuntimeSocket(r, 20*time.Second)
	for _, s := range []haproxy.Socket{master, runtime} {
		testkit.Eventually(t, 20*time.Second, func() error { _, err := s.Exec(t.Context(), "show version"); return err })
	}
	return master, runtime
}

func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nh")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestSocketsOfARealHAProxy(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		master, runtime := sockets(t, h)
		for _, c := range []struct {
			name     string
			socket   haproxy.Socket
			command  string
			severity int
			text     string // a part of the reply
			refused  bool
		}{
			{"a show command", runtime, "show info", haproxy.NoSeverity, "Pid: ", false},
			{"success without words", runtime, "set weight be/a 7", haproxy.NoSeverity, "", false},
			{"a change that is announced", runtime, "add server be/b 127.0.0.1:2", 6, "New server registered", false},
			{"a change that is refused", runtime, "add server none/b 127.0.0.1:2", 3, "No such backend", true},
			{"an unknown command", runtime, "frobnicate", 6, "Unknown command", true},
			{"the master", master, "show proc", haproxy.NoSeverity, "master", false},
			{"an unknown command to the master", master, "frobnicate", haproxy.NoSeverity, "Unknown command", true},
			{"a worker through the master", master, "@1 show version", haproxy.NoSeverity, h.Version, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				r, err := c.socket.Exec(t.Context(), c.command)
				var refused *haproxy.CommandError
				if errors.As(err, &refused) != c.refused || err != nil && !c.refused {
					t.Fatalf("error %v", err)
				}
				if r.Severity != c.severity || !strings.Contains(r.Text, c.text) || c.text == "" && r.Text != "" {
					t.Errorf("got %+v", r)
				}
			})
		}
		p, err := master.Exec(t.Context(), "show proc")
		if err != nil {
			t.Fatal(err)
		}
		procs, err := haproxy.ParseProcesses(p.Text)
		if err != nil || len(procs.Workers) != 1 {
			t.Fatalf("%+v, %v", procs, err)
		}
		i, err := runtime.Exec(t.Context(), "show info")
		if err != nil {
			t.Fatal(err)
		}
		if info, err := haproxy.ParseInfo(i.Text); err != nil || info.Pid != procs.Workers[0].Pid {
			t.Errorf("show info: %+v, %v; want pid %d", info, err, procs.Workers[0].Pid)
		}
	})
}

// fake answers every connection with a fixed text after it has read a line, or never.
func fake(t *testing.T, reply string, silent bool) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadAll(c)
			if silent {
				defer c.Close()
				continue
			}
			_, _ = io.WriteString(c, reply)
			c.Close()
		}
	}()
	return path
}

func TestSilenceIsNotSuccess(t *testing.T) {
	for _, c := range []struct {
		name  string
		reply string
		want  error
	}{
		{"nothing at all, as 2.6 answers a command that is too long", "", haproxy.ErrNoReply},
		{"only the answer to the severity setting", "\n", haproxy.ErrNoReply},
		{"an empty line is success", "\n\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := haproxy.RuntimeSocket(fake(t, c.reply, false), 20*time.Second).Exec(t.Context(), "x")
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestSocketsHaveADeadline(t *testing.T) {
	_, err := haproxy.RuntimeSocket(fake(t, "", true), 50*time.Millisecond).Exec(t.Context(), "show info")
	if err == nil || !strings.Contains(err.Error(), "deadline") {
		t.Errorf("got %v", err)
	}
}

func TestSocketsRefuseWhatIsNotOneCommand(t *testing.T) {
	s := haproxy.RuntimeSocket("/nonexistent", time.Second)
	for _, command := range []string{"", " ", "a\nb", "a;b", "a\rb", "a\x00b", `a\`, "a\\\nb", strings.Repeat("x", haproxy.MaxCommand+1)} {
		if _, err := s.Exec(t.Context(), command); err == nil || !strings.HasPrefix(err.Error(), "haproxy command") || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%.20q: got %v, want it refused before anything is sent", command, err)
		}
	}
	if _, err := s.Exec(t.Context(), `add map f a\;b c\ d`); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("escaped bytes: got %v, want only the missing socket", err)
	}
}
