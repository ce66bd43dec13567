package main_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
)

const within = 20 * time.Second

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(mainFunc(func() int { return containers.Main(m.Run) }))
}

type mainFunc func() int

func (f mainFunc) Run() int { return f() }

// process is a running program of ours.
type process struct {
	t    testing.TB
	cmd  *exec.Cmd
	out  lockedBuffer
	done chan struct{}

	quiet bool // its output is not shown when the test fails
}

// start runs a program with an environment of its own. It is ended when the test ends: nuncio by TERM, since a killed one
// leaves HAProxy running.
func start(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(testkit.Program(t, name), args...), done: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = 5 * time.Second // for output that another process could still write
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // code reads it
		close(p.done)
	}()
	t.Cleanup(func() {
		if name == "nuncio" {
			_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
			select {
			case <-p.done:
			case <-time.After(within):
			}
		}
		p.kill()
		if t.Failed() && !p.quiet {
			t.Logf("%s %s:\n%s", name, strings.Join(args, " "), p.out.String())
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// code waits for the end and returns the exit code.
func (p *process) code() int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("it does not end:\n%s", p.out.String())
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) logged(part string) {
	p.t.Helper()
	testkit.Eventually(p.t, within, func() error {
		if out := p.out.String(); !strings.Contains(out, part) {
			return fmt.Errorf("no %q in:\n%s", part, out)
		}
		return nil
	})
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// env is an etcd and the flags that every registrar of a test needs.
type env struct {
	t     testing.TB
	etcd  *testkit.Etcd
	store *clientv3.Client
	word  string
}

func newEnv(t testing.TB) *env {
	e := testkit.StartEtcd(t)
	return &env{t, e, e.Client(), containers.Name()}
}

// run are the flags of a daemon that sees only this test's containers.
func (s *env) run(args ...string) []string {
	return append([]string{
		"run", "--node=n1", "--etcd-endpoints=" + s.etcd.Endpoint, "--label-prefix=" + s.word, "--ttl=5s",
		"--advertise-ip=" + testkit.Host(), "--admin-listen=",
	}, args...)
}

func (s *env) label(service string) map[string]string {
	return map[string]string{s.word + ".service": service}
}

type kv struct {
	value              string
	mod, create, lease int64
}

func (s *env) records() map[string]kv {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := s.store.Get(ctx, "/services/", clientv3.WithPrefix())
	if err != nil {
		s.t.Fatal(err)
	}
	m := map[string]kv{}
	for _, k := range resp.Kvs {
		m[strings.TrimPrefix(string(k.Key), "/services/")] = kv{string(k.Value), k.ModRevision, k.CreateRevision, k.Lease}
	}
	return m
}

// expect waits until the store holds exactly these records; each value has to begin as given.
func (s *env) expect(what string, want map[string]string) map[string]kv {
	s.t.Helper()
	var got map[string]kv
	testkit.Eventually(s.t, within, func() error {
		got = s.records()
		if len(got) != len(want) {
			return fmt.Errorf("%s: records %v, want %v", what, got, want)
		}
		for key, begin := range want {
			if !strings.HasPrefix(got[key].value, begin) {
				return fmt.Errorf("%s: record %s is %q, want it to begin with %s", what, key, got[key].value, begin)
			}
		}
		return nil
	})
	return got
}

// awaitRenewals waits until a lease of 5 seconds was renewed four times, which takes longer than it lives without.
func (s *env) awaitRenewals(lease int64) {
	s.t.Helper()
	renewals, last := 0, int64(0)
	testkit.Eventually(s.t, within, func() error {
		resp, err := s.store.TimeToLive(s.t.Context(), clientv3.LeaseID(lease))
		if err != nil {
			return err
		}
		if resp.TTL > last && last != 0 {
			renewals++
		}
		if last = resp.TTL; renewals < 4 {
			return fmt.Errorf("%d renewals of lease %x", renewals, lease)
		}
		return nil
	})
}

// begins is how the record of an address begins.
func begins(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf(`{"host":%q,"port":%s,`, host, port)
}
