package deploy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// labLabel marks what a lab makes, with the process that made it, so that the next run can remove what a killed one left.
const labLabel = "nuncio-deploy-test"

// hardened is how every container of the tests runs, and how deploy/ starts them.
var hardened = []string{"--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"}

// lab is a set of containers and networks of this test alone.
type lab struct {
	t     *testing.T // fails: the test, or the step of it that runs
	whole *testing.T // cleans up
	id    string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	tool(t, "docker", "docker.io")
	if out, err := exec.Command("docker", "version", "--format", "{{.Server.Version}}").CombinedOutput(); err != nil {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatalf("no Docker engine and NUNCIO_TEST_STRICT=1: %s", out)
		}
		t.Skipf("no Docker engine: %s", out)
	}
	l := &lab{t: t, whole: t, id: fmt.Sprintf("nd%d-%d", os.Getpid(), time.Now().UnixNano()%1000)}
	l.sweep()
	return l
}

// sweep removes what test processes that are gone have left.
func (l *lab) sweep() {
	for _, kind := range []string{"container", "network"} {
		list := []string{kind, "ls", "--no-trunc", "--filter", "label=" + labLabel, "--format", `{{.ID}} {{.Label "` + labLabel + `"}}`}
		if kind == "container" {
			list = append(list, "--all")
		}
		for line := range strings.Lines(l.docker(list...)) {
			id, pid, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, err := strconv.Atoi(pid)
			if err != nil || syscall.Kill(n, 0) == nil {
				continue
			}
			args := []string{"network", "rm", id}
			if kind == "container" {
				args = []string{"rm", "-fv", id}
			}
			_ = exec.Command("docker", args...).Run() // the next run tries again
		}
	}
}

// docker runs the client and fails the test when that fails.
func (l *lab) docker(args ...string) string {
	l.t.Helper()
	out, err := l.try(args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lab) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "docker", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("docker %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// network makes a network and returns the address of this host on it.
func (l *lab) network(name string, args ...string) (gateway string) {
	l.t.Helper()
	full := l.id + "-" + name
	l.docker(append(append([]string{"network", "create", "--label", fmt.Sprintf("%s=%d", labLabel, os.Getpid())}, args...), full)...)
	l.whole.Cleanup(func() {
		if _, err := l.try("network", "rm", full); err != nil {
			l.whole.Error(err)
		}
	})
	return l.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", full)
}

// freeSubnet is one that Docker itself would have chosen.
func (l *lab) freeSubnet() string {
	l.t.Helper()
	full := l.id + "-probe"
	l.docker("network", "create", full)
	defer l.docker("network", "rm", full)
	return l.docker("network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", full)
}

// box is one container.
type box struct {
	lab  *lab
	name string
}

// create makes a container on networks without starting it. flags are those of docker create, command follows the image.
func (l *lab) create(name, image string, networks []string, flags, command []string) *box {
	l.t.Helper()
	b := &box{l, l.id + "-" + name}
	args := []string{"create", "--name", b.name, "--label", fmt.Sprintf("%s=%d", labLabel, os.Getpid())}
	args = append(args, hardened...)
	if len(networks) > 0 {
		args = append(args, "--network", l.id+"-"+networks[0], "--network-alias", name)
	}
	l.docker(append(append(append(args, flags...), image), command...)...)
	l.whole.Cleanup(func() {
		if l.whole.Failed() {
			l.whole.Logf("log of %s:\n%s", name, b.log(60))
		}
		if _, err := l.try("rm", "-fv", b.name); err != nil {
			l.whole.Error(err)
		}
	})
	for _, network := range networks[min(1, len(networks)):] {
		l.docker("network", "connect", "--alias", name, l.id+"-"+network, b.name)
	}
	return b
}

func (b *box) start() { b.lab.t.Helper(); b.lab.docker("start", b.name) }
func (b *box) kill()  { b.lab.t.Helper(); b.lab.docker("kill", b.name) }

func (b *box) connect(network string) {
	b.lab.t.Helper()
	b.lab.docker("network", "connect", b.lab.id+"-"+network, b.name)
}

func (b *box) disconnect(network string) {
	b.lab.t.Helper()
	b.lab.docker("network", "disconnect", b.lab.id+"-"+network, b.name)
}

func (b *box) exec(args ...string) (string, error) {
	return b.lab.try(append([]string{"exec", b.name}, args...)...)
}

func (b *box) inspect(format string) string {
	b.lab.t.Helper()
	return b.lab.docker("inspect", "-f", format, b.name)
}

// log returns the last lines, without the requests that went well: they are too many to read.
func (b *box) log(lines int) string {
	out, err := b.lab.try("logs", "--tail", strconv.Itoa(lines*100), b.name)
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

// built builds every image once per process and returns their ids: names could be given to newer images meanwhile.
var built = sync.OnceValues(func() (map[string]string, error) {
	names := []string{"haproxy", "registrar", "apache", "etcd"}
	cmd := exec.Command("scripts/images", names...)
	cmd.Dir = testkit.Root()
	cmd.Env = append(os.Environ(), "VERSION=test")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("scripts/images: %w\n%s", err, out)
	}
	ids := map[string]string{}
	for _, name := range names {
		id, err := exec.Command("docker", "image", "inspect", "-f", "{{.Id}}", "nuncio/"+name+":test").Output()
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

// socketGroup is the group that may use Docker's socket.
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

// TestImagesHoldNothingElse: no shell, no package manager, a user that is not root, labels, and sizes for the record.
func TestImagesHoldNothingElse(t *testing.T) {
	l := newLab(t)
	for name, id := range images(t) {
		var config struct {
			User   string
			Labels map[string]string
		}
		if err := json.Unmarshal([]byte(l.docker("image", "inspect", "-f", "{{json .Config}}", id)), &config); err != nil {
			t.Fatal(err)
		}
		if config.User != "65532:65532" {
			t.Errorf("%s runs as %q, want a number that is not root's", name, config.User)
		}
		if config.Labels["org.opencontainers.image.version"] != "test" || config.Labels["org.opencontainers.image.revision"] == "" {
			t.Errorf("%s has the labels %v, want version and revision", name, config.Labels)
		}
		b := l.create("look-"+name, id, nil, nil, nil)
		archive := filepath.Join(t.TempDir(), "image.tar")
		l.docker("export", "-o", archive, b.name)
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
		t.Logf("%s: %s bytes", name, l.docker("image", "inspect", "-f", "{{.Size}}", id))
	}
}
