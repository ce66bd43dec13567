// Package containers gives tests real Docker containers: an image with one static web server, which is built when it is
// first needed, and containers and networks whose names belong to this test process.
//
// It removes all that it creates when the test or the test process ends, and what an earlier, killed test process left
// behind. It never pulls an image.
//
//	func TestMain(m *testing.M) { os.Exit(containers.Main(m.Run)) }
//
//	engine := containers.Connect(t, "")
//	c := engine.Run(t, containers.Spec{Labels: map[string]string{"nuncio.service": "web"}, Publish: []string{"80"}})
package containers

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"

	"nuncio/internal/testkit"
)

// label marks everything with testkit.Owner.
const label = "test.nuncio.owner"

// imageName has one tag for each test process.
const imageName = "nuncio-test"

// requestTimeout bounds every request: an engine on a busy machine takes seconds to start a container.
const requestTimeout = 60 * time.Second

var shared struct {
	sync.Mutex
	tar     []byte
	engines []*Engine // with an imported image
	serial  atomic.Int64
}

// Engine is a Docker engine.
type Engine struct {
	Client *client.Client
	// Host is its address in the form of DOCKER_HOST; empty for the default engine of this machine.
	Host  string
	image string
}

// Container is a container of a test.
type Container struct {
	ID, Name string

	engine *Engine
	t      testing.TB
}

// Spec says how a container is started.
type Spec struct {
	Name    string // empty: generated
	Labels  map[string]string
	Env     []string
	Publish []string // as for docker run -p; a port alone is published on testkit.Host
	Network string
	Restart string // a restart policy
	Health  bool   // with a HEALTHCHECK that asks /healthz
	Signal  string // the stop signal
	Remove  bool   // removed when it ends
	Created bool   // not started
}

// Main runs a package's tests and removes the images afterwards.
func Main(run func() int) int {
	code := run()
	shared.Lock()
	defer shared.Unlock()
	for _, e := range shared.engines {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		_, _ = e.Client.ImageRemove(ctx, e.image, image.RemoveOptions{Force: true}) // fails if the engine has ended
		cancel()
		_ = e.Client.Close()
	}
	return code
}

// Connect returns the engine at host, or the default engine of this machine when host is empty. Without Docker it skips
// the test, or fails it if NUNCIO_TEST_STRICT=1.
func Connect(t testing.TB, host string) *Engine {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	for _, e := range shared.engines {
		if e.Host == host {
			return e
		}
	}
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if _, err := c.Ping(ctx); err != nil {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatalf("Docker is missing and NUNCIO_TEST_STRICT=1: %v", err)
		}
		t.Skipf("no Docker: %v", err)
	}
	e := &Engine{Client: c, Host: host, image: imageName + ":" + testkit.Owner()}
	e.removeLeftovers(ctx)
	e.load(ctx, t)
	shared.engines = append(shared.engines, e)
	return e
}

// Forget drops an engine that has ended, so that Connect makes a new one.
func (e *Engine) Forget() {
	shared.Lock()
	defer shared.Unlock()
	for i, other := range shared.engines {
		if other == e {
			shared.engines = append(shared.engines[:i], shared.engines[i+1:]...)
		}
	}
	_ = e.Client.Close()
}

// removeLeftovers removes what killed test processes left behind.
func (e *Engine) removeLeftovers(ctx context.Context) {
	all, err := e.Client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", label))})
	if err != nil {
		return // the test will fail for the same reason
	}
	for _, c := range all {
		if testkit.OwnerEnded(c.Labels[label]) {
			_ = e.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true}) // a different test process may be faster
		}
	}
	networks, _ := e.Client.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("label", label))})
	for _, n := range networks {
		if testkit.OwnerEnded(n.Labels[label]) {
			_ = e.Client.NetworkRemove(ctx, n.ID)
		}
	}
	images, _ := e.Client.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", imageName))})
	for _, img := range images {
		for _, tag := range img.RepoTags {
			if testkit.OwnerEnded(strings.TrimPrefix(tag, imageName+":")) {
				_, _ = e.Client.ImageRemove(ctx, tag, image.RemoveOptions{Force: true})
			}
		}
	}
}

// load builds the server and imports it as an image.
func (e *Engine) load(ctx context.Context, t testing.TB) {
	t.Helper()
	if shared.tar == nil {
		shared.tar = buildTar(t)
	}
	out, err := e.Client.ImageImport(ctx, image.ImportSource{Source: bytes.NewReader(shared.tar), SourceName: "-"}, e.image,
		image.ImportOptions{Changes: []string{`ENTRYPOINT ["/server"]`, "EXPOSE 80"}})
	if err != nil {
		t.Fatalf("import the test image: %v", err)
	}
	defer out.Close()
	if text, err := io.ReadAll(out); err != nil || bytes.Contains(text, []byte(`"error"`)) {
		t.Fatalf("import the test image: %v %s", err, text)
	}
}

func buildTar(t testing.TB) []byte {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "server"), "./internal/testkit/containers/testdata/server")
	cmd.Dir, cmd.Env = testkit.Root(), append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test server: %v\n%s", err, out)
	}
	binary, err := os.ReadFile(filepath.Join(dir, "server"))
	if err != nil {
		t.Fatal(err)
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "server", Mode: 0o755, Size: int64(len(binary))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(binary); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Name returns a new name that no other test process uses.
func Name() string { return testkit.UniqueName(shared.serial.Add(1)) }

// Run starts a container, which is removed when the test ends.
func (e *Engine) Run(t testing.TB, s Spec) *Container {
	t.Helper()
	if s.Name == "" {
		s.Name = Name()
	}
	labels := map[string]string{label: testkit.Owner()}
	maps.Copy(labels, s.Labels)
	conf := &container.Config{Image: e.image, Labels: labels, Env: append([]string{"NAME=" + s.Name}, s.Env...), StopSignal: s.Signal}
	if s.Health {
		conf.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "/server", "probe"}, Interval: 200 * time.Millisecond, Timeout: 10 * time.Second, Retries: 1}
	}
	exposed, bindings := publish(t, s.Publish)
	conf.ExposedPorts = exposed
	host := &container.HostConfig{
		PortBindings: bindings, NetworkMode: container.NetworkMode(s.Network), AutoRemove: s.Remove,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyMode(s.Restart)},
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	resp, err := e.Client.ContainerCreate(ctx, conf, host, nil, nil, s.Name)
	if err != nil {
		t.Fatalf("create container %s: %v", s.Name, err)
	}
	c := &Container{ID: resp.ID, Name: s.Name, engine: e, t: t}
	t.Cleanup(c.Remove)
	if !s.Created {
		c.Start()
	}
	return c
}

func publish(t testing.TB, specs []string) (nat.PortSet, nat.PortMap) {
	t.Helper()
	for i, p := range specs {
		if _, err := strconv.Atoi(p); err == nil {
			specs[i] = testkit.Host() + "::" + p
		}
	}
	exposed, bindings, err := nat.ParsePortSpecs(specs)
	if err != nil {
		t.Fatal(err)
	}
	return exposed, bindings
}

func (c *Container) do(what string, f func(ctx context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if err := f(ctx); err != nil {
		c.t.Fatalf("%s container %s: %v", what, c.Name, err)
	}
}

// Start starts the container.
func (c *Container) Start() {
	c.t.Helper()
	c.do("start", func(ctx context.Context) error {
		return c.engine.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
	})
}

// Stop does what "docker stop" does.
func (c *Container) Stop() {
	c.t.Helper()
	c.do("stop", func(ctx context.Context) error {
		return c.engine.Client.ContainerStop(ctx, c.ID, container.StopOptions{})
	})
}

// Restart does what "docker restart" does.
func (c *Container) Restart() {
	c.t.Helper()
	c.do("restart", func(ctx context.Context) error {
		return c.engine.Client.ContainerRestart(ctx, c.ID, container.StopOptions{})
	})
}

// Kill sends a signal.
func (c *Container) Kill(signal string) {
	c.t.Helper()
	c.do("kill", func(ctx context.Context) error { return c.engine.Client.ContainerKill(ctx, c.ID, signal) })
}

// Pause freezes the container.
func (c *Container) Pause() {
	c.t.Helper()
	c.do("pause", func(ctx context.Context) error { return c.engine.Client.ContainerPause(ctx, c.ID) })
}

// Unpause ends Pause.
func (c *Container) Unpause() {
	c.t.Helper()
	c.do("unpause", func(ctx context.Context) error { return c.engine.Client.ContainerUnpause(ctx, c.ID) })
}

// Rename changes its name.
func (c *Container) Rename(name string) {
	c.t.Helper()
	c.do("rename", func(ctx context.Context) error { return c.engine.Client.ContainerRename(ctx, c.ID, name) })
	c.Name = name
}

// Connect adds the container to a network.
func (c *Container) Connect(name string) {
	c.t.Helper()
	c.do("connect", func(ctx context.Context) error { return c.engine.Client.NetworkConnect(ctx, name, c.ID, nil) })
}

// Disconnect removes the container from a network.
func (c *Container) Disconnect(name string) {
	c.t.Helper()
	c.do("disconnect", func(ctx context.Context) error { return c.engine.Client.NetworkDisconnect(ctx, name, c.ID, true) })
}

// Remove does what "docker rm -f" does; it is no error if the container does not exist.
func (c *Container) Remove() {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	_ = c.engine.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
}

// Inspect returns what "docker inspect" shows.
func (c *Container) Inspect() container.InspectResponse {
	c.t.Helper()
	var in container.InspectResponse
	c.do("inspect", func(ctx context.Context) (err error) {
		in, err = c.engine.Client.ContainerInspect(ctx, c.ID)
		return err
	})
	return in
}

// Addr returns the host side of a published TCP port as Docker reports it now, or an empty string.
func (c *Container) Addr(port int) string {
	c.t.Helper()
	for _, b := range c.Inspect().NetworkSettings.Ports[nat.Port(fmt.Sprintf("%d/tcp", port))] {
		return net.JoinHostPort(b.HostIP, b.HostPort)
	}
	return ""
}

// Network creates a network, which is removed when the test ends, and returns its name.
func (e *Engine) Network(t testing.TB) string {
	t.Helper()
	name := Name()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	if _, err := e.Client.NetworkCreate(ctx, name, network.CreateOptions{Labels: map[string]string{label: testkit.Owner()}}); err != nil {
		t.Fatalf("create network: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
		defer cancel()
		_ = e.Client.NetworkRemove(ctx, name) // fails only if the engine has ended
	})
	return name
}
