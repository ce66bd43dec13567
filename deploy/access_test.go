package deploy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

// TestRolesGrantTheMinimum creates an authority, certificates, a server and the roles as docs/deploy.md describes.
func TestRolesGrantTheMinimum(t *testing.T) {
	t.Parallel()
	tool(t, "openssl", "openssl")
	ctl := etcdctl(t)
	dir := t.TempDir()
	certs(t, dir, "authority")
	certs(t, dir, "member", "one", testkit.Host())
	for _, name := range []string{"root", "nuncio", "registrar", "stranger"} {
		certs(t, dir, "client", name)
	}
	endpoint := secureEtcd(t, dir)
	roles(t, ctl, dir, endpoint, "/services/", "/config/")
	roles(t, ctl, dir, endpoint, "/services/", "/config/") // again: nothing changes

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	root := dial(t, dir, endpoint, "root")
	for _, key := range []string{"/services/web/a", "/config/x", "/other"} {
		if _, err := root.Put(ctx, key, "192.0.2.1:80"); err != nil {
			t.Fatal(err)
		}
	}
	nuncio, registrar, stranger := dial(t, dir, endpoint, "nuncio"), dial(t, dir, endpoint, "registrar"), dial(t, dir, endpoint, "stranger")
	for _, c := range []struct {
		what    string
		client  *clientv3.Client
		do      func(*clientv3.Client) error
		allowed bool
	}{
		{"nuncio lists the records", nuncio, list(ctx, "/services/"), true},
		{"nuncio watches the records", nuncio, watch(ctx, "/services/"), true},
		{"nuncio lists the further prefix", nuncio, list(ctx, "/config/"), true},
		{"nuncio lists everything", nuncio, list(ctx, "/"), false},
		{"nuncio watches another prefix", nuncio, watch(ctx, "/other"), false},
		{"nuncio writes a record", nuncio, put(ctx, "/services/web/a"), false},
		{"nuncio deletes the records", nuncio, remove(ctx, "/services/"), false},
		{"nuncio makes itself a user", nuncio, addUser(ctx), false},
		{"registrar lists the records", registrar, list(ctx, "/services/"), true},
		{"registrar watches the records", registrar, watch(ctx, "/services/"), true},
		{"registrar writes under a lease", registrar, lease(ctx, "/services/web/b"), true},
		{"registrar deletes a record", registrar, remove(ctx, "/services/web/a"), true},
		{"registrar claims its node", registrar, lease(ctx, "/nuncio/registrars/node"), true},
		{"nuncio claims a node", nuncio, put(ctx, "/nuncio/registrars/node"), false},
		{"registrar reads configuration", registrar, list(ctx, "/config/"), false},
		{"registrar writes elsewhere", registrar, put(ctx, "/config/x"), false},
		{"registrar makes itself a user", registrar, addUser(ctx), false},
		{"a certificate without a user lists the records", stranger, list(ctx, "/services/"), false},
		{"root does", root, list(ctx, "/"), true},
	} {
		err := c.do(c.client)
		if c.allowed && err != nil {
			t.Errorf("%s: %v, want it to be allowed", c.what, err)
		}
		if !c.allowed && err == nil {
			t.Errorf("%s: allowed, want a refusal", c.what)
		}
	}

	// A client without a certificate cannot even connect.
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool.AppendCertsFromPEM(ca)
	// With TLS 1.3 a client learns of the refusal only when it reads.
	conn, err := tls.Dial("tcp", strings.TrimPrefix(endpoint, "https://"), &tls.Config{RootCAs: pool})
	if err == nil {
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("a client without certificate: %v, want the server to require one", err)
	}
}

func TestAuthorityIsNeverReplaced(t *testing.T) {
	tool(t, "openssl", "openssl")
	dir := t.TempDir()
	certs(t, dir, "authority")
	out, err := exec.Command("etcd/certs", dir, "authority").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "worthless") {
		t.Errorf("a second authority in the same place: %v\n%s", err, out)
	}
}

type request = func(*clientv3.Client) error

func list(ctx context.Context, prefix string) request {
	return func(c *clientv3.Client) error {
		_, err := c.Get(ctx, prefix, clientv3.WithPrefix())
		return err
	}
}

func watch(ctx context.Context, prefix string) request {
	return func(c *clientv3.Client) error {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		for resp := range c.Watch(clientv3.WithRequireLeader(ctx), prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
			if resp.Created && !resp.Canceled {
				return nil
			}
			if err := resp.Err(); err != nil {
				return err
			}
		}
		return rpctypes.ErrPermissionDenied
	}
}

func put(ctx context.Context, key string) request {
	return func(c *clientv3.Client) error {
		_, err := c.Put(ctx, key, "x")
		return err
	}
}

func remove(ctx context.Context, prefix string) request {
	return func(c *clientv3.Client) error {
		_, err := c.Delete(ctx, prefix, clientv3.WithPrefix())
		return err
	}
}

func lease(ctx context.Context, key string) request {
	return func(c *clientv3.Client) error {
		granted, err := c.Grant(ctx, 30)
		if err != nil {
			return err
		}
		if _, err := c.Put(ctx, key, "192.0.2.1:80", clientv3.WithLease(granted.ID)); err != nil {
			return err
		}
		if _, err := c.KeepAliveOnce(ctx, granted.ID); err != nil {
			return err
		}
		_, err = c.Revoke(ctx, granted.ID)
		return err
	}
}

func addUser(ctx context.Context) request {
	return func(c *clientv3.Client) error {
		_, err := c.UserAdd(ctx, "more", "secret")
		return err
	}
}

// certs runs the shipped script.
func certs(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("etcd/certs", args...).CombinedOutput(); err != nil {
		t.Fatalf("certs %q: %v\n%s", args, err, out)
	}
}

// roles runs the shipped script with the real etcdctl, as root.
func roles(t *testing.T, ctl, dir, endpoint string, args ...string) {
	t.Helper()
	cmd := exec.Command("etcd/roles", args...)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(ctl)+":"+os.Getenv("PATH"),
		"ETCDCTL_ENDPOINTS="+endpoint, "ETCDCTL_CACERT="+dir+"/ca.pem", "ETCDCTL_CERT="+dir+"/root.pem", "ETCDCTL_KEY="+dir+"/root.key")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("roles %q: %v\n%s", args, err, out)
	}
}

// secureEtcd starts an etcd as docs/deploy.md describes: with TLS, and with a certificate required of every client.
func secureEtcd(t *testing.T, dir string) string {
	t.Helper()
	bin := filepath.Join(testkit.Root(), "build/tools/etcd")
	if _, err := os.Stat(bin); err != nil {
		tool(t, bin, "it with make tools")
	}
	endpoint, peer := "https://"+testkit.FreeAddr(t), "http://"+testkit.FreeAddr(t)
	cmd := exec.Command(bin, "--name=one", "--data-dir="+t.TempDir(), "--log-level=error", "--unsafe-no-fsync",
		"--listen-client-urls="+endpoint, "--advertise-client-urls="+endpoint,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=one="+peer,
		"--trusted-ca-file="+dir+"/ca.pem", "--cert-file="+dir+"/one.pem", "--key-file="+dir+"/one.key", "--client-cert-auth")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
	})
	client := dial(t, dir, endpoint, "root")
	testkit.Eventually(t, 30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := client.Get(ctx, "x"); err != nil {
			return fmt.Errorf("etcd at %s: %w", endpoint, err)
		}
		return nil
	})
	return endpoint
}

// dial connects as nuncio and the registrar do, with the certificate of name.
func dial(t *testing.T, dir, endpoint, name string) *clientv3.Client {
	t.Helper()
	client, err := etcd.Dial(etcd.Config{
		Endpoints: []string{endpoint}, CAFile: dir + "/ca.pem", CertFile: dir + "/" + name + ".pem", KeyFile: dir + "/" + name + ".key",
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// etcdctl returns the program that "make tools" builds, or builds it.
func etcdctl(t *testing.T) string {
	t.Helper()
	path := filepath.Join(testkit.Root(), "build/tools/etcdctl")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	out, err := exec.Command(filepath.Join(testkit.Root(), "scripts/etcdctl"), path).CombinedOutput()
	if err != nil {
		t.Fatalf("build etcdctl: %v\n%s", err, out)
	}
	return path
}
