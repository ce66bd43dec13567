package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/status"
)

// certEnv is a nuncio whose configuration names certificates outside of the template directory: a directory, a file behind
// links as certbot has them, and a crt-list.
type certEnv struct {
	*env
	pki             *testkit.PKI
	dir, file, list string // addresses that serve each
	outside         string
}

func newCertEnv(t *testing.T, h testkit.HAProxy) *certEnv {
	t.Helper()
	c := &certEnv{env: newEnv(t, h), pki: testkit.NewPKI(t), dir: testkit.FreeAddr(t), file: testkit.FreeAddr(t), list: testkit.FreeAddr(t)}
	c.outside = filepath.Join(t.TempDir(), "my certs") // a name that needs quotes
	binds := fmt.Sprintf("\tbind %s ssl crt %q\n\tbind %s ssl crt %q\n\tbind %s ssl crt-list %q\n",
		c.dir, c.outside+"/dir/", c.file, c.outside+"/live/site.pem", c.list, c.outside+"/list.txt")
	c.template(strings.Replace(aTemplate, "\tdefault_backend", binds+"\tdefault_backend", 1))
	return c
}

// write replaces a file below the directory by rename.
func (c *certEnv) write(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.outside, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(c.outside+"/.new", []byte(text), 0o600)
	}
	if err == nil {
		err = os.Rename(c.outside+"/.new", path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// link replaces a link below the directory by rename.
func (c *certEnv) link(name, target string) {
	c.t.Helper()
	path := filepath.Join(c.outside, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.Symlink(target, path+".new")
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// served waits until a name is served with the certificate of a PEM text.
func (c *certEnv) served(addr, name, pem string) {
	c.t.Helper()
	testkit.Eventually(c.t, 20*time.Second, func() error {
		serial, err := c.pki.Served(addr, name)
		if want := c.pki.Serial(pem); err == nil && serial != want {
			err = fmt.Errorf("%s is served with %s, want %s", name, serial, want)
		}
		return err
	})
}

func (c *certEnv) status() (o status.Overview) {
	c.t.Helper()
	text, err := testkit.Get("http://" + c.admin + "/v1/status")
	if err == nil {
		err = json.Unmarshal([]byte(text), &o)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return o
}

// says waits until /readyz has a text.
func (c *certEnv) says(text string) {
	c.t.Helper()
	testkit.Eventually(c.t, 20*time.Second, func() error {
		body, err := readyz(c.env)
		if err == nil && !strings.Contains(body, text) {
			err = fmt.Errorf("/readyz says %q, want %q", body, text)
		}
		return err
	})
}

// TestCertificatesOutsideAreFollowed renews certificates as other programs do, adds and removes some, and breaks some, while
// HAProxy serves. No worker may be replaced for a good one, and nothing may stop for a bad one.
func TestCertificatesOutsideAreFollowed(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		c := newCertEnv(t, h)
		server := func(name string) string { return c.pki.Server(name + ".example.com") }
		a, b := c.write("dir/a.pem", server("a")), c.write("dir/b.pem", server("b"))
		c.write("dir/broken.pem", strings.Replace(server("broken"), "BEGIN CERT", "BEGIN", 1)) // from the start: it is left out
		site := c.write("archive/site1.pem", server("site"))
		c.link("live/site.pem", "../archive/site1.pem")
		listed := c.write("listed/l.pem", server("l"))
		c.write("list.txt", fmt.Sprintf("%s [alpn http/1.1] l.example.com\n", filepath.Join(c.outside, "listed/l.pem")))
		c.outsideWithoutBlanks(t)
		c.put("web/a", c.webs[0].Addr)
		c.start()
		c.served(c.dir, "a.example.com", a)
		c.served(c.dir, "b.example.com", b)
		c.served(c.file, "site.example.com", site)
		c.served(c.list, "l.example.com", listed)
		c.says("broken.pem is not served")
		worker := c.status().HAProxy.WorkerPid

		b = c.write("dir/b.pem", server("b"))
		c.served(c.dir, "b.example.com", b)
		site = c.write("archive/site2.pem", server("site"))
		c.link("live/site.pem", "../archive/site2.pem")
		c.served(c.file, "site.example.com", site)
		listed = c.write("listed/l.pem", server("l"))
		c.served(c.list, "l.example.com", listed)
		n := c.write("dir/n.pem", server("n"))
		c.served(c.dir, "n.example.com", n)
		c.write("dir/broken.pem", server("was-broken"))
		testkit.Eventually(t, 20*time.Second, func() error { _, err := c.pki.Served(c.dir, "was-broken.example.com"); return err })
		if err := os.Remove(filepath.Join(c.outside, "dir/n.pem")); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			if _, err := c.pki.Served(c.dir, "n.example.com"); err == nil {
				return fmt.Errorf("n.example.com is served without its file")
			}
			return nil
		})
		if now := c.status().HAProxy; now.WorkerPid != worker || now.OldWorkers > 0 {
			t.Errorf("the worker was replaced: %+v, want %d", now, worker)
		}
		c.says("running")

		// A key that does not fit, an expired certificate and a file that is gone: what was served is served, also after a
		// reload, and after a restart of everything.
		_, other, _ := strings.Cut(server("b"), "-----END CERTIFICATE-----\n")
		own, _, _ := strings.Cut(server("b"), "-----BEGIN EC")
		c.write("dir/b.pem", own+other)
		c.says("another certificate")
		c.write("archive/site2.pem", c.pki.ServerFor(-time.Minute, "site.example.com"))
		c.says("has expired")
		if err := os.Remove(filepath.Join(c.outside, "listed/l.pem")); err != nil {
			t.Fatal(err)
		}
		c.says("no such file")
		if text, err := testkit.Get("http://" + c.admin + "/metrics"); err != nil || !strings.Contains(text, "nuncio_certificates_refused 3") || !strings.Contains(text, `nuncio_certificate_expiry_timestamp_seconds{file="`+c.outside+`/dir/a.pem"}`) {
			t.Errorf("metrics: %v in\n%s", err, text)
		}
		if out, err := exec.Command(c.program, "certs", "--state-dir="+c.state).CombinedOutput(); err == nil || !strings.Contains(string(out), "the one before is served") || !strings.Contains(string(out), "a.example.com") || !strings.Contains(string(out), "0 days") {
			t.Errorf("nuncio certs: %v\n%s", err, out)
		}
		if out, err := exec.Command(c.program, "render", "--diff", "--state-dir="+c.state, "--etcd-endpoints="+c.etcd.Endpoint, "--templates="+filepath.Join(c.env.dir, "t"), "--set=http="+c.http).CombinedOutput(); err != nil {
			t.Errorf("a difference between what runs and the templates: %v\n%s", err, out)
		}
		still := func(when string) {
			t.Helper()
			c.served(c.dir, "a.example.com", a)
			c.served(c.dir, "b.example.com", b)
			c.served(c.file, "site.example.com", site)
			c.served(c.list, "l.example.com", listed)
			if t.Failed() {
				t.Fatal(when)
			}
		}
		still("broken files")
		c.put("other/a", c.webs[1].Addr) // a new backend: a reload where HAProxy has no command for it
		a = c.write("dir/a.pem", server("a"))
		c.served(c.dir, "a.example.com", a)
		still("a reload with broken files")
		good := a
		c.write("dir/a.pem", c.pki.Weak("a.example.com"))
		c.says("HAProxy does not take it")
		c.put("third/a", c.webs[2].Addr)
		still("a certificate that only HAProxy refuses")
		a = c.write("dir/a.pem", server("a"))
		c.served(c.dir, "a.example.com", a)
		if a == good {
			t.Fatal("not renewed")
		}
		c.kill()
		c.start()
		c.says("another certificate")
		still("a restart with broken files")
		site = c.write("archive/site2.pem", server("site"))
		c.served(c.file, "site.example.com", site)
		modes(t, c.state)
	})
}

// outsideWithoutBlanks: a crt-list separates its words by blanks, so its own directory must not have any.
func (c *certEnv) outsideWithoutBlanks(t *testing.T) {
	t.Helper()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.Symlink(c.outside, plain); err != nil {
		t.Fatal(err)
	}
	c.write("list.txt", fmt.Sprintf("%s/listed/l.pem [alpn http/1.1] l.example.com\n", plain))
}

// modes fails the test if a file below the state directory is readable for others.
func modes(t *testing.T, dir string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".pem") {
			found++
			if info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
		}
		return nil
	})
	if err != nil || found == 0 {
		t.Errorf("%d certificates, %v", found, err)
	}
}

// TestCertificatesFromEtcd has a template that makes a PEM file of a key in etcd.
func TestCertificatesFromEtcd(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	e, pki, addr := newEnv(t, all[len(all)-1], "--keys=/certs/"), testkit.NewPKI(t), testkit.FreeAddr(t)
	c := &certEnv{env: e, pki: pki}
	e.template(strings.Replace(aTemplate, "\tdefault_backend", "\tbind "+addr+" ssl crt certs\n\tdefault_backend", 1))
	if err := os.MkdirAll(filepath.Join(e.dir, "t/certs"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.dir, "t/certs/site.pem.tmpl"), []byte(`{{raw (getv "/certs/site")}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	put := func(text string) string {
		t.Helper()
		if _, err := e.client.Put(t.Context(), "/certs/site", text); err != nil {
			t.Fatal(err)
		}
		return text
	}
	site := put(pki.Server("site.example.com"))
	e.put("web/a", e.webs[0].Addr)
	e.start()
	c.served(addr, "site.example.com", site)
	c.says("running")
	worker := c.status().HAProxy.WorkerPid
	site = put(pki.Server("site.example.com"))
	c.served(addr, "site.example.com", site)
	put(site[:len(site)-60])
	c.says("certificate certs/site.pem: the one before is served")
	e.put("web/a", e.webs[1].Addr)
	testkit.Eventually(t, 20*time.Second, func() error {
		got, err := e.get()
		if err == nil && got != "web1" {
			err = fmt.Errorf("%q answers", got)
		}
		return err
	})
	c.served(addr, "site.example.com", site)
	if now := c.status().HAProxy; now.WorkerPid != worker {
		t.Errorf("the worker was replaced: %+v", now)
	}
	text, err := testkit.Get("http://" + e.admin + "/v1/certs")
	if err != nil || !strings.Contains(text, `"source": "rendered"`) || !strings.Contains(text, `"state": "kept"`) {
		t.Errorf("%v: %s", err, text)
	}
	// A freeze keeps certificates too.
	order := func(name string) {
		t.Helper()
		if out, err := exec.Command(e.program, name, "--state-dir="+e.state).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	order("freeze")
	renewed := put(pki.Server("site.example.com"))
	e.put("web/a", e.webs[2].Addr)
	testkit.Eventually(t, 20*time.Second, func() error { // until nuncio has seen both
		out, _ := exec.Command(e.program, "diff", "--state-dir="+e.state).CombinedOutput() // it exits with 1
		if !strings.Contains(string(out), "certs/site.pem") || !strings.Contains(string(out), e.webs[2].Addr) {
			return fmt.Errorf("the difference is %s", out)
		}
		return nil
	})
	c.served(addr, "site.example.com", site)
	if text, err := testkit.Get("http://" + e.admin + "/v1/certs"); err != nil || !strings.Contains(text, "site.example.com") {
		t.Errorf("while it is frozen: %v: %s", err, text)
	}
	order("resume")
	c.served(addr, "site.example.com", renewed)
	c.says("running")
}

// TestShippedTemplateFollowsItsCertificates has the setting https.crt lead out of the template directory.
func TestShippedTemplateFollowsItsCertificates(t *testing.T) {
	t.Parallel()
	c := newCertEnv(t, testkit.OneHAProxy(t))
	c.shipped("metrics.bind=off;https.bind=" + c.dir + ";https.crt=" + c.outside + "/dir")
	a := c.write("dir/a.pem", c.pki.Server("a.example.com"))
	c.put("web/a", c.webs[0].Addr)
	c.start()
	c.served(c.dir, "a.example.com", a)
	c.says("running")
	worker := c.status().HAProxy.WorkerPid
	a, b := c.write("dir/a.pem", c.pki.Server("a.example.com")), c.write("dir/b.pem", c.pki.Server("b.example.com"))
	c.served(c.dir, "a.example.com", a)
	c.served(c.dir, "b.example.com", b)
	if now := c.status().HAProxy.WorkerPid; now != worker {
		t.Errorf("worker %d is now %d", worker, now)
	}
}
