package deploy_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// cluster is what docs/deploy.md sets up: three members of etcd, two machines and an HAProxy.
type cluster struct {
	*docker
	etcd      []*container
	registrar map[string]*container // by machine
	apache    map[string]*container
	haproxy   *container
	url       string
	images    map[string]string
	certs     string
	hosts     []string // flags that tell a container outside of etcd's network where its members are
}

// patience is for a machine that has other things to do.
const patience = 60 * time.Second

// TestFailover sets up what docs/deploy.md describes, in real containers, and makes parts of it fail. A "machine" is a
// network with a registrar, which knows its containers by the prefix of their labels; Docker chooses the ports and
// publishes them on the machine's address only.
func TestFailover(t *testing.T) {
	t.Parallel()
	c := &cluster{docker: newDocker(t), registrar: map[string]*container{}, apache: map[string]*container{}}
	c.images = images(t)
	c.startEtcd()
	c.startMachines()
	c.startHAProxy()

	c.apache["one"] = c.startApache("one", "core-1")
	c.pageBy("one")
	out, err := exec.Command(tool(t, "curl", "curl"), "-s", c.url).Output()
	if err != nil || !strings.Contains(string(out), "Running from Docker on CoreOS") {
		t.Fatalf("curl %s: %v\n%s", c.url, err, out)
	}

	for _, step := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"the machine is cut off and Apache comes back elsewhere", cutOff},
		{"a drained instance stops and no request fails", drainedStop},
		{"an instance stops without a drain", plainStop},
		{"a machine reboots cleanly", cleanReboot},
		{"an instance is killed", hardKill},
		{"etcd loses one member, then its quorum, then has it again", loseEtcd},
		{"docker stop of HAProxy cuts no request", stopHAProxy},
		{"HAProxy is killed and comes back with etcd down", killHAProxy},
	} {
		c.t = t
		if !t.Run(step.name, func(t *testing.T) { c.t = t; step.run(t, c) }) {
			break // each step begins where the one before it ended
		}
	}
}

// startEtcd starts three members with TLS and the shipped roles, on an internal network.
func (c *cluster) startEtcd() {
	c.t.Helper()
	tool(c.t, "openssl", "openssl")
	// The members keep their addresses when they restart; Docker gives fixed addresses only in a subnet that was chosen.
	subnet := c.networkWithSubnet("etcd", "--internal")
	c.certs = c.whole.TempDir()
	certs(c.t, c.certs, "authority")
	names := []string{"e1", "e2", "e3"}
	var cluster []string
	for _, name := range names {
		certs(c.t, c.certs, "member", name, name)
		cluster = append(cluster, name+"=https://"+name+":2380")
	}
	for _, name := range []string{"root", "nuncio", "registrar"} {
		certs(c.t, c.certs, "client", name)
	}
	// The containers run as a user other than this test's.
	keys, err := filepath.Glob(c.certs + "/*.key")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, key := range keys {
		if err := os.Chmod(key, 0o644); err != nil {
			c.t.Fatal(err)
		}
	}
	for i, name := range names {
		address := netip.MustParsePrefix(subnet).Addr().Next()
		for range 10 + i {
			address = address.Next()
		}
		c.hosts = append(c.hosts, "--add-host", name+":"+address.String())
		member := c.create(name, c.images["etcd"], []string{"etcd"}, []string{"--ip", address.String(), "-v", c.certs + ":/certs:ro"}, []string{
			"--name=" + name, "--initial-cluster=" + strings.Join(cluster, ","), "--log-level=warn",
			"--listen-peer-urls=https://0.0.0.0:2380", "--initial-advertise-peer-urls=https://" + name + ":2380",
			"--listen-client-urls=https://0.0.0.0:2379", "--advertise-client-urls=https://" + name + ":2379",
			"--trusted-ca-file=/certs/ca.pem", "--cert-file=/certs/" + name + ".pem", "--key-file=/certs/" + name + ".key", "--client-cert-auth",
			"--peer-trusted-ca-file=/certs/ca.pem", "--peer-cert-file=/certs/" + name + ".pem", "--peer-key-file=/certs/" + name + ".key", "--peer-client-cert-auth",
		})
		c.etcd = append(c.etcd, member)
	}
	for _, member := range c.etcd {
		member.start()
	}
	c.eventually(func() error { return c.etcdctl("endpoint", "health") })
	c.grantRoles()
}

var asRoot = []string{
	"ETCDCTL_ENDPOINTS=https://e1:2379,https://e2:2379,https://e3:2379",
	"ETCDCTL_CACERT=/certs/ca.pem", "ETCDCTL_CERT=/certs/root.pem", "ETCDCTL_KEY=/certs/root.key",
}

// etcdctl runs in the first member that runs.
func (c *cluster) etcdctl(args ...string) error {
	for _, member := range c.etcd {
		if member.inspect("{{.State.Running}}") != "true" {
			continue
		}
		command := []string{"exec"}
		for _, variable := range asRoot {
			command = append(command, "-e", variable)
		}
		_, err := c.try(append(append(command, member.name, "etcdctl"), args...)...)
		return err
	}
	return errors.New("no member of etcd runs")
}

// grantRoles runs the shipped script with the etcdctl of the first member.
func (c *cluster) grantRoles() {
	c.t.Helper()
	bin := c.t.TempDir()
	var flags strings.Builder
	for _, variable := range asRoot {
		fmt.Fprintf(&flags, "-e %s ", variable)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec docker exec %s %s etcdctl \"$@\"\n", flags.String(), c.etcd[0].name)
	if err := os.WriteFile(bin+"/etcdctl", []byte(script), 0o755); err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command("etcd/roles")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("roles: %v\n%s", err, out)
	}
}

// asUser returns flags for a container whose program uses etcd with the certificate of name.
func (c *cluster) asUser(name string) []string {
	return []string{
		"-v", c.certs + ":/certs:ro", "-e", "NUNCIO_ETCD_ENDPOINTS=https://e1:2379,https://e2:2379,https://e3:2379",
		"-e", "NUNCIO_ETCD_CA=/certs/ca.pem", "-e", "NUNCIO_ETCD_CERT=/certs/" + name + ".pem", "-e", "NUNCIO_ETCD_KEY=/certs/" + name + ".key",
	}
}

func (c *cluster) startMachines() {
	c.t.Helper()
	for _, machine := range []string{"core-1", "core-2"} {
		address := c.network(machine)
		c.registrar[machine] = c.create("register-"+machine, c.images["registrar"], []string{machine, "etcd"}, append(c.asUser("registrar"),
			"--user", "65532:65532", "--group-add", socketGroup(c.t), "-v", "/var/run/docker.sock:/var/run/docker.sock",
			"-e", "NUNCIO_REGISTRAR_NODE="+machine, "-e", "NUNCIO_REGISTRAR_ADVERTISE_IP="+address,
			"-e", "NUNCIO_REGISTRAR_TTL=5s", "-e", "NUNCIO_REGISTRAR_LABEL_PREFIX="+c.id+"."+machine), nil)
		c.registrar[machine].start()
	}
}

// startHAProxy uses the host's network: the kernel then routes connections to a published port straight to the container,
// as it does for connections from a different machine. From a container's network they would go through docker-proxy,
// which accepts them even if nothing listens behind it.
func (c *cluster) startHAProxy() {
	c.t.Helper()
	address := c.network("front")
	c.url = "http://" + address + ":" + freePort(c.t) + "/"
	flags := append(c.asUser("nuncio"), "--user", "65532:65532", "--network", "host", "-e", "NUNCIO_ADMIN_LISTEN="+address+":"+freePort(c.t))
	c.haproxy = c.create("haproxy", c.images["haproxy"], nil, append(append(flags, "--health-interval=1s"), c.hosts...),
		[]string{"--set=http.bind=" + strings.Trim(c.url, "htp:/"), "--set=metrics.bind=off"})
	c.haproxy.start()
}

// startApache starts an Apache on a machine, on a port that Docker chooses. The registrar finds it.
func (c *cluster) startApache(name, machine string) *container {
	c.t.Helper()
	address := c.run("network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", c.id+"-"+machine)
	apache := c.create(name, c.images["apache"], []string{machine}, []string{
		"--hostname", name, "--user", "65532:65532", "-p", address + "::80", "--label", c.id + "." + machine + ".service=apache-A",
	}, nil)
	apache.start()
	return apache
}

func (c *cluster) eventually(check func() error) time.Duration {
	c.t.Helper()
	start := time.Now()
	testkit.Eventually(c.t, patience, check)
	return time.Since(start)
}

// once requests the page and returns the name of the instance that served it.
func (c *cluster) once() (by string, err error) {
	transport := &http.Transport{DisableKeepAlives: true}
	return ask(&http.Client{Transport: transport, Timeout: 5 * time.Second}, c.url, false)
}

// pageBy waits until the page comes from name.
func (c *cluster) pageBy(name string) time.Duration {
	c.t.Helper()
	return c.eventually(func() error {
		by, err := c.once()
		if err == nil && by != name {
			err = fmt.Errorf("served by %s, want %s", by, name)
		}
		return err
	})
}

// serving waits until HAProxy's configuration has exactly these instances.
func (c *cluster) serving(names ...string) time.Duration {
	c.t.Helper()
	return c.eventually(func() error {
		have, err := c.servers()
		if err == nil && !slices.Equal(have, names) {
			err = fmt.Errorf("HAProxy has the servers %v, want %v", have, names)
		}
		return err
	})
}

// servers copies the current generation out of the container, which has no shell, and returns its servers.
func (c *cluster) servers() (names []string, err error) {
	dir, err := os.MkdirTemp("", "generation")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	current, err := c.try("cp", c.haproxy.name+":/var/lib/nuncio/.", dir)
	if err != nil {
		return nil, fmt.Errorf("%w %s", err, current)
	}
	text, err := os.ReadFile(dir + "/current/haproxy.cfg")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "server" {
			_, name, _ := strings.Cut(words[1], c.id+"-")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
