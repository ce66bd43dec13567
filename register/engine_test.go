package register_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/client"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

// dockerd is a Docker engine of the test's own, in network, mount and process namespaces of its own.
type dockerd struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	host string
}

func startDockerd(t *testing.T) *dockerd {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatal("a private Docker engine needs root, and NUNCIO_TEST_STRICT=1")
		}
		t.Skip("a private Docker engine needs root")
	}
	// Not t.TempDir: a path of a Unix socket holds 107 bytes.
	dir, err := os.MkdirTemp("", "nd")
	if err != nil {
		t.Fatal(err)
	}
	d := &dockerd{t: t, dir: dir, host: "unix://" + dir + "/d.sock"}
	t.Cleanup(func() {
		d.end(syscall.SIGKILL)
		testkit.Eventually(t, within, func() error { return os.RemoveAll(dir) })
	})
	d.start()
	return d
}

func (d *dockerd) start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	// The engine of a killed namespace leaves its pid files, which would stop the next one.
	_ = os.RemoveAll(filepath.Join(d.dir, "exec"))
	_ = os.Remove(filepath.Join(d.dir, "pid"))
	config := filepath.Join(d.dir, "config.json") // not the machine's own
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		d.t.Fatal(err)
	}
	script := "ip link set lo up && mount -t tmpfs none /run && exec dockerd -H " + d.host + " --data-root " + d.dir + "/data --exec-root " + d.dir +
		"/exec --pidfile " + d.dir + "/pid --config-file " + config + " --storage-driver vfs --bip 10.199.0.1/24 --ip 127.0.0.1"
	d.cmd = exec.Command("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	c, err := client.NewClientWithOpts(client.WithHost(d.host), client.WithAPIVersionNegotiation())
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close()
	testkit.Eventually(d.t, 60*time.Second, func() error {
		ctx, cancel := context.WithTimeout(d.t.Context(), 5*time.Second)
		defer cancel()
		if _, err := c.Ping(ctx); err != nil {
			text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
			return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):])
		}
		return nil
	})
}

// end stops the engine, with TERM, or with KILL together with everything in its namespaces.
func (d *dockerd) end(sig syscall.Signal) {
	if d.cmd == nil {
		return
	}
	if sig == syscall.SIGTERM {
		// unshare does not pass signals on; its only child is the engine.
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", d.cmd.Process.Pid, d.cmd.Process.Pid))
		var pid int
		if _, err := fmt.Sscan(string(children), &pid); err == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	} else {
		_ = d.cmd.Process.Kill()
	}
	_ = d.cmd.Wait() // however it ended
	d.cmd = nil
}

func TestDockerRestarted(t *testing.T) {
	t.Parallel()
	d := startDockerd(t)
	h := harnessOn(t, testkit.StartEtcd(t), d.host)
	defer h.engine.Forget()
	local := func(s containers.Spec) *containers.Container {
		s.Publish = []string{"127.0.0.1::80"}
		return h.web(s)
	}
	always := local(containers.Spec{Restart: "always"})
	never := local(containers.Spec{})
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, always, never))

	d.end(syscall.SIGTERM)
	h.awaitLog("docker does not answer")
	d.start()
	h.expect("after TERM", h.recordsOf(catalog.StateReady, always))
	never.Start()
	h.expect("started by hand", h.recordsOf(catalog.StateReady, always, never))

	before := h.records()
	d.end(syscall.SIGKILL)
	testkit.Eventually(t, within, func() error {
		if s := h.reg.Status(); s.Docker == "" {
			return fmt.Errorf("state %q", s.State)
		}
		return nil
	})
	if now := h.records(); len(now) != len(before) {
		t.Errorf("records while Docker is away: %v, want %v", now, before)
	}
	d.start()
	h.expect("after KILL", h.recordsOf(catalog.StateReady, always))
	always.Stop()
	h.expect("events arrive", map[string]entry{})
}

// TestAReadOnlyProxyIsEnough puts a proxy before the socket that lets GET requests through, and only to the
// documented addresses.
func TestAReadOnlyProxyIsEnough(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "docker" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
		}},
		FlushInterval: -1,
	}
	var mu sync.Mutex
	refused := map[string]bool{}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := req.URL.Path
		if _, rest, ok := strings.Cut(strings.TrimPrefix(path, "/v1."), "/"); ok && strings.HasPrefix(path, "/v1.") {
			path = "/" + rest
		}
		ok := path == "/_ping" || path == "/version" || path == "/events" || path == "/containers/json" ||
			strings.HasPrefix(path, "/containers/") && strings.HasSuffix(path, "/json")
		if req.Method != http.MethodGet || !ok {
			mu.Lock()
			refused[req.Method+" "+path] = true
			mu.Unlock()
			w.WriteHeader(http.StatusForbidden)
			return
		}
		proxy.ServeHTTP(w, req)
	})}
	addr := testkit.FreeAddr(t)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })

	c, err := client.NewClientWithOpts(client.WithHost("tcp://"+addr), client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	o := h.docker
	o.API, o.Rules = register.NewAPI(c), h.rules
	h.opts.Source = register.NewDocker(o)
	h.start()
	web := h.web(containers.Spec{})
	h.expect("started", h.recordsOf(catalog.StateReady, web))
	web.Restart()
	h.expect("restarted", h.recordsOf(catalog.StateReady, web))
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for request := range refused {
		if request != "HEAD /_ping" {
			t.Errorf("the registrar asked for %s", request)
		}
	}
}
