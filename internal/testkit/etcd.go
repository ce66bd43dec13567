package testkit

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// Etcd is a real etcd server in a process of its own, on a fixed loopback address, with a data directory that
// outlives the process.
type Etcd struct {
	Endpoint string // "http://127.x.y.1:port"
	Dir      string

	t    testing.TB
	bin  string
	peer string
	args []string
	cmd  *exec.Cmd
	log  lockedBuffer
	http *http.Client
}

// StartEtcd starts a one-member etcd, with more flags if args has any, and waits until it answers.
func StartEtcd(t testing.TB, args ...string) *Etcd {
	t.Helper()
	return startEtcd(t, "http://", &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, args)
}

// StartSecureEtcd starts a one-member etcd that requires TLS and a client certificate of the authority p.
func StartSecureEtcd(t testing.TB, p *PKI) *Etcd {
	t.Helper()
	cert, key := p.Issue("server")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.client(), DisableKeepAlives: true}}
	return startEtcd(t, "https://", client, []string{
		"--cert-file=" + cert, "--key-file=" + key, "--trusted-ca-file=" + p.CA, "--client-cert-auth",
	})
}

// StartEtcdCluster starts a cluster of n members and waits until it answers.
func StartEtcdCluster(t testing.TB, n int) []*Etcd {
	t.Helper()
	var members []*Etcd
	var all []string
	for i := range n {
		e := newEtcd(t, "http://", &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, nil)
		members, all = append(members, e), append(all, fmt.Sprintf("m%d=%s", i, e.peer))
	}
	for i, e := range members {
		// etcd takes the last value of a flag that is given twice.
		e.args = []string{fmt.Sprintf("--name=m%d", i), "--initial-cluster=" + strings.Join(all, ",")}
		e.launch()
	}
	for _, e := range members {
		e.await()
	}
	return members
}

func startEtcd(t testing.TB, scheme string, client *http.Client, args []string) *Etcd {
	t.Helper()
	e := newEtcd(t, scheme, client, args)
	e.Start()
	return e
}

func newEtcd(t testing.TB, scheme string, client *http.Client, args []string) *Etcd {
	t.Helper()
	e := &Etcd{
		Endpoint: scheme + FreeAddr(t), peer: "http://" + FreeAddr(t), Dir: filepath.Join(t.TempDir(), "etcd"),
		t: t, bin: filepath.Join(Root(), "build/tools/etcd"), args: args, http: client,
	}
	if _, err := os.Stat(e.bin); err != nil {
		missing(t, "the etcd server")
		t.Skip("no etcd: run make tools")
	}
	t.Cleanup(e.Kill)
	return e
}

// Start starts the server again on the same address and data, and waits until it answers.
func (e *Etcd) Start() {
	e.t.Helper()
	e.launch()
	e.await()
}

func (e *Etcd) launch() {
	e.t.Helper()
	e.cmd = exec.Command(e.bin, append([]string{
		"--name=it", "--data-dir=" + e.Dir, "--log-level=warn", "--unsafe-no-fsync",
		"--listen-client-urls=" + e.Endpoint, "--advertise-client-urls=" + e.Endpoint,
		"--listen-peer-urls=" + e.peer, "--initial-advertise-peer-urls=" + e.peer, "--initial-cluster=it=" + e.peer,
	}, e.args...)...)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	// A test binary that is killed must not leave servers behind.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		e.t.Fatalf("start etcd: %v", err)
	}
}

// await waits until the server answers, and has a quorum if it is a member of several.
func (e *Etcd) await() {
	e.t.Helper()
	Eventually(e.t, 30*time.Second, func() error {
		resp, err := e.http.Get(e.Endpoint + "/health")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, e.log.String())
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("etcd health: %s", resp.Status)
		}
		return nil
	})
}

// Pid is the process of the server while it runs.
func (e *Etcd) Pid() int { return e.cmd.Process.Pid }

// Stop ends the server with SIGTERM and waits for it.
func (e *Etcd) Stop() { e.end(syscall.SIGTERM) }

// Kill ends the server with SIGKILL and waits for it; a server that has ended already is fine.
func (e *Etcd) Kill() { e.end(syscall.SIGKILL) }

// Pause stops the process without closing its connections: a half-open peer.
func (e *Etcd) Pause() { e.signal(syscall.SIGSTOP) }

// Resume continues after Pause.
func (e *Etcd) Resume() { e.signal(syscall.SIGCONT) }

// Wipe deletes the data directory; the server must not run.
func (e *Etcd) Wipe() {
	e.t.Helper()
	if err := os.RemoveAll(e.Dir); err != nil {
		e.t.Fatal(err)
	}
}

// Client returns a new connection to this member and others. It is closed when the test ends.
func (e *Etcd) Client(others ...*Etcd) *clientv3.Client {
	e.t.Helper()
	endpoints := []string{e.Endpoint}
	for _, o := range others {
		endpoints = append(endpoints, o.Endpoint)
	}
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints, DialTimeout: 10 * time.Second,
		// gRPC's default pauses grow to two minutes, which a test that stops the server would wait for.
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, MaxDelay: time.Second}, MinConnectTimeout: time.Second,
		})},
	})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	return c
}

// Put writes one key and returns the store's revision.
func (e *Etcd) Put(key, value string) int64 {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{e.Endpoint}})
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.Close()
	resp, err := c.Put(ctx, key, value)
	if err != nil {
		e.t.Fatalf("put %s: %v", key, err)
	}
	return resp.Header.Revision
}

// EnableAuth turns authentication on, with a root whose password is "root", and with a user that may read the prefixes.
func (e *Etcd) EnableAuth(user, password string, prefixes ...string) {
	e.t.Helper()
	c, ctx := e.Client(), e.t.Context()
	check := func(err error) {
		e.t.Helper()
		if err != nil {
			e.t.Fatal(err)
		}
	}
	for name, word := range map[string]string{user: password, "root": "root"} {
		_, err := c.UserAdd(ctx, name, word)
		check(err)
		_, err = c.RoleAdd(ctx, name)
		check(err)
		_, err = c.UserGrantRole(ctx, name, name)
		check(err)
	}
	for _, p := range prefixes {
		_, err := c.RoleGrantPermission(ctx, user, p, clientv3.GetPrefixRangeEnd(p), clientv3.PermissionType(clientv3.PermRead))
		check(err)
	}
	_, err := c.AuthEnable(ctx)
	check(err)
}

// PasswordFile writes a password to a file and returns its path.
func PasswordFile(t testing.TB, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (e *Etcd) signal(sig syscall.Signal) {
	e.t.Helper()
	if err := e.cmd.Process.Signal(sig); err != nil {
		e.t.Fatalf("send %v to etcd: %v", sig, err)
	}
}

func (e *Etcd) end(sig syscall.Signal) {
	if e.cmd == nil || e.cmd.Process == nil {
		return
	}
	_ = e.cmd.Process.Signal(sig) // it may have ended already
	_ = e.cmd.Wait()              // it was killed: its status means nothing
	e.cmd = nil
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
