package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// ownerLabel marks all that the tests make with testkit.Owner, so that the next run can remove what a killed one left.
const ownerLabel = "test.nuncio.deploy"

// dockers numbers the values of docker.
var dockers atomic.Int64

// hardened has the flags that every container of the tests runs with, as the files of deploy/ have them.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}

// docker runs Docker's client, and names the containers and networks of one test.
type docker struct {
	t     *testing.T // fails: the test, or the step of it that runs
	whole *testing.T // cleans up
	id    string     // begins all names
}

func newDocker(t *testing.T) *docker {
	t.Helper()
	tool(t, "docker", "docker.io")
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatalf("no Docker engine and NUNCIO_TEST_STRICT=1: %s", out)
		}
		t.Skipf("no Docker engine: %s", out)
	}
	d := &docker{t: t, whole: t, id: testkit.UniqueName(dockers.Add(1))}
	d.removeLeftovers()
	return d
}

// removeLeftovers removes what test processes that were killed have left.
func (d *docker) removeLeftovers() {
	for kind, remove := range map[string][]string{"container": {"rm", "-fv"}, "network": {"network", "rm"}} {
		list := []string{kind, "ls", "--no-trunc", "--filter", "label=" + ownerLabel, "--format", `{{.ID}} {{.Label "` + ownerLabel + `"}}`}
		if kind == "container" {
			list = append(list, "--all")
		}
		for line := range strings.Lines(d.run(list...)) {
			if id, owner, _ := strings.Cut(strings.TrimSpace(line), " "); testkit.OwnerEnded(owner) {
				_, _ = d.try(append(remove, id)...) // the next run tries again
			}
		}
	}
}

// run runs the client and fails the test when that fails.
func (d *docker) run(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

func (d *docker) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// network creates a network and returns the address of this host on it.
func (d *docker) network(name string, args ...string) (gateway string) {
	d.t.Helper()
	full := d.id + "-" + name
	if err := d.createNetwork(full, args...); err != nil {
		d.t.Fatal(err)
	}
	return d.run("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", full)
}

func (d *docker) createNetwork(full string, args ...string) error {
	_, err := d.try(append(append([]string{"network", "create", "--label", ownerLabel + "=" + testkit.Owner()}, args...), full)...)
	if err == nil {
		d.whole.Cleanup(func() {
			if _, err := d.try("network", "rm", full); err != nil {
				d.whole.Error(err)
			}
		})
	}
	return err
}

// networkWithSubnet creates a network whose subnet is chosen by its creator, as fixed addresses require, and returns the
// subnet. It takes one that Docker would choose; if a test that runs at the same time gets it first, it takes the next.
func (d *docker) networkWithSubnet(name string, args ...string) (subnet string) {
	d.t.Helper()
	full, probe := d.id+"-"+name, d.id+"-probe"
	var err error
	for range 10 {
		d.run("network", "create", "--label", ownerLabel+"="+testkit.Owner(), probe)
		subnet = d.run("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", probe)
		d.run("network", "rm", probe)
		if err = d.createNetwork(full, append(args, "--subnet", subnet)...); err == nil {
			return subnet
		}
	}
	d.t.Fatal(err)
	return ""
}

// container is a container of a test.
type container struct {
	docker *docker
	name   string
}

// create creates a container on networks without starting it, with flags of "docker create". command follows the image.
func (d *docker) create(name, image string, networks []string, flags, command []string) *container {
	d.t.Helper()
	c := &container{d, d.id + "-" + name}
	args := []string{"create", "--name", c.name, "--label", ownerLabel + "=" + testkit.Owner()}
	args = append(args, hardened...)
	if len(networks) > 0 {
		args = append(args, "--network", d.id+"-"+networks[0], "--network-alias", name)
	}
	d.run(append(append(append(args, flags...), image), command...)...)
	d.whole.Cleanup(func() {
		if d.whole.Failed() {
			d.whole.Logf("log of %s:\n%s", name, c.log(60))
		}
		if _, err := d.try("rm", "-fv", c.name); err != nil {
			d.whole.Error(err)
		}
	})
	for _, network := range networks[min(1, len(networks)):] {
		d.run("network", "connect", "--alias", name, d.id+"-"+network, c.name)
	}
	return c
}

func (c *container) start() { c.docker.t.Helper(); c.docker.run("start", c.name) }
func (c *container) kill()  { c.docker.t.Helper(); c.docker.run("kill", c.name) }

func (c *container) connect(network string) {
	c.docker.t.Helper()
	c.docker.run("network", "connect", c.docker.id+"-"+network, c.name)
}

func (c *container) disconnect(network string) {
	c.docker.t.Helper()
	c.docker.run("network", "disconnect", c.docker.id+"-"+network, c.name)
}

func (c *container) exec(args ...string) (string, error) {
	return c.docker.try(append([]string{"exec", c.name}, args...)...)
}

func (c *container) inspect(format string) string {
	c.docker.t.Helper()
	return c.docker.run("inspect", "-f", format, c.name)
}

// log returns the last lines without the successful requests, which are too many to read.
func (c *container) log(lines int) string {
	out, err := c.docker.try("logs", "--tail", strconv.Itoa(lines*100), c.name)
	if err != nil {
		return err.Error()
	}
	var kept []string
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "HTTP/1.1") || strings.Contains(line, " 50") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-lines):], "")
}

// imagePrefix differs between clones: two clones that are tested on one engine must not replace each other's images.
var imagePrefix = fmt.Sprintf("nuncio-test-%08x", crc32.ChecksumIEEE([]byte(testkit.Root())))

// built builds the images once per process and returns their ids.
var built = sync.OnceValues(func() (map[string]string, error) {
	names := []string{"haproxy", "registrar", "apache", "etcd"}
	cmd := exec.Command("scripts/images", names...)
	cmd.Dir = testkit.Root()
	cmd.Env = append(os.Environ(), "VERSION=test", "IMAGE_PREFIX="+imagePrefix)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("scripts/images: %w\n%s", err, out)
	}
	ids := map[string]string{}
	for _, name := range names {
		id, err := exec.Command("docker", "image", "inspect", "-f", "{{.Id}}", imagePrefix+"/"+name+":test").Output()
		if err != nil {
			return nil, fmt.Errorf("image %s: %w", name, err)
		}
		ids[name] = strings.TrimSpace(string(id))
	}
	return ids, nil
})

func images(t *testing.T) map[string]string {
	t.Helper()
	ids, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// socketGroup returns the group that may use Docker's socket.
func socketGroup(t *testing.T) string {
	t.Helper()
	info, err := os.Stat("/var/run/docker.sock")
	if err != nil {
		t.Skipf("the engine has no local socket: %v", err)
	}
	return strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
}

// freePort returns a port that nothing on this machine listens on, whatever the address.
func freePort(t *testing.T) string {
	t.Helper()
	_, port, err := net.SplitHostPort(testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// TestImagesAreMinimal wants no shell, no package manager, a user other than root, and labels. It logs sizes.
func TestImagesAreMinimal(t *testing.T) {
	t.Parallel()
	d := newDocker(t)
	for name, id := range images(t) {
		var config struct {
			User   string
			Labels map[string]string
		}
		if err := json.Unmarshal([]byte(d.run("image", "inspect", "-f", "{{json .Config}}", id)), &config); err != nil {
			t.Fatal(err)
		}
		if config.User != "65532:65532" {
			t.Errorf("%s runs as %q, want a number that is not root's", name, config.User)
		}
		if config.Labels["org.opencontainers.image.version"] != "test" || config.Labels["org.opencontainers.image.revision"] == "" {
			t.Errorf("%s has the labels %v, want version and revision", name, config.Labels)
		}
		c := d.create("look-"+name, id, nil, nil, nil)
		archive := filepath.Join(t.TempDir(), "image.tar")
		d.run("export", "-o", archive, c.name)
		out, err := exec.Command("tar", "-tf", archive).Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			switch filepath.Base(strings.TrimSpace(line)) {
			case "sh", "bash", "dash", "busybox", "perl", "apt", "apt-get", "dpkg", "su":
				if !strings.Contains(line, "share/") && !strings.HasSuffix(strings.TrimSpace(line), "/") {
					t.Errorf("%s holds %s", name, line)
				}
			}
		}
		t.Logf("%s: %s bytes", name, d.run("image", "inspect", "-f", "{{.Size}}", id))
	}
}
