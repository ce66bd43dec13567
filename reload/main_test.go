package reload_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestMain(m *testing.M) {
	if os.Getenv("RELOAD_TEST_STATE") != "" {
		crashingNuncio()
	}
	goleak.VerifyTestMain(m)
}

// harness is one running Manager of a test, with a caller of Apply that goes on trying what was submitted last.
type harness struct {
	*reload.Manager
	t       testing.TB
	dir     string // state directory
	log     *syncBuffer
	stop    context.CancelFunc
	ended   chan error
	runs    bool
	desired chan reload.Desired
}

// start runs a Manager until the test ends. Zero options get values that suit a test.
func start(t testing.TB, h testkit.HAProxy, opts reload.Options) *harness {
	t.Helper()
	r := &harness{t: t, log: &syncBuffer{}, ended: make(chan error, 1), runs: true, desired: make(chan reload.Desired)}
	opts.HAProxy = cmp.Or(opts.HAProxy, h.Path)
	if opts.StateDir == "" {
		opts.StateDir = stateDir(t)
	}
	if opts.StartWait == 0 {
		opts.StartWait = time.Hour
	}
	if opts.DrainTimeout == 0 {
		opts.DrainTimeout = 5 * time.Second
	}
	r.dir = opts.StateDir
	opts.Logger = slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	m, err := reload.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	r.Manager = m
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = cancel
	go r.keepApplying(ctx)
	go func() { r.ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		if r.runs {
			m.StopNow()
			_ = r.end()
		}
		cancel()
		if r.log.count("unexpected change of state") > 0 {
			t.Error("the state changed in a way that is not in the table")
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", h.Version, r.log.String())
		}
	})
	return r
}

// keepApplying applies what was submitted last, and tries again when that fails or HAProxy may run something else.
func (r *harness) keepApplying(ctx context.Context) {
	var desired reload.Desired
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case desired = <-r.desired:
		case <-r.Outdated():
		case <-retry.C:
		}
		if desired.Files.Digest() == (haproxy.Files{}).Digest() {
			continue
		}
		if _, err := r.Apply(ctx, desired); err != nil {
			retry.Reset(100 * time.Millisecond)
		}
	}
}

// end stops the Manager and returns what Run returned.
func (r *harness) end() error {
	r.t.Helper()
	r.stop()
	return r.wait()
}

func (r *harness) wait() error {
	r.t.Helper()
	r.runs = false
	select {
	case err := <-r.ended:
		return err
	case <-time.After(60 * time.Second):
		r.t.Fatal("Run does not return")
		return nil
	}
}

// submit hands files to the caller of Apply.
func (r *harness) submit(files haproxy.Files, revision int64) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	select {
	case r.desired <- reload.Desired{Files: files, Revision: revision}:
	case <-ctx.Done():
		r.t.Fatalf("revision %d is not taken", revision)
	}
}

// until waits for a status.
func (r *harness) until(what string, ok func(reload.Status) bool) reload.Status {
	r.t.Helper()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for {
		changed := r.Changed()
		s := r.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.t.Fatalf("no status with %s; it is %+v", what, s)
		}
	}
}

// applied submits files and waits until HAProxy runs them.
func (r *harness) applied(files haproxy.Files, revision int64) reload.Status {
	r.t.Helper()
	r.submit(files, revision)
	return r.until(fmt.Sprintf("revision %d running", revision), func(s reload.Status) bool {
		return s.State == reload.Running && s.AppliedRevision == revision
	})
}

// serves waits for a body from an address.
func (r *harness) serves(addr, want string) {
	r.t.Helper()
	testkit.Eventually(r.t, 15*time.Second, func() error {
		got, err := get(addr)
		if err == nil && got != want {
			err = fmt.Errorf("got %q, want %q", got, want)
		}
		return err
	})
}

func get(addr string) (string, error) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + addr + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// stateDir is short, because the path of a socket is.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const head = `
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
    timeout http-keep-alive 1s
`

// config answers with body on addr, and holds more lines in the frontend.
func config(addr, body string, more ...string) haproxy.Files {
	return files(map[string]string{"haproxy.cfg": head + `
frontend front
    bind ` + addr + `
    http-request return status 200 content-type text/plain string ` + body + "\n" + strings.Join(append(more, ""), "\n")})
}

func files(content map[string]string) haproxy.Files {
	m := map[string][]byte{}
	for name, text := range content {
		m[name] = []byte(text)
	}
	f, err := haproxy.NewFiles(m)
	if err != nil {
		panic(err)
	}
	return f
}

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

func (b *syncBuffer) count(s string) int { return strings.Count(b.String(), s) }

func cfg(text string) haproxy.Files { return files(map[string]string{"haproxy.cfg": text}) }
