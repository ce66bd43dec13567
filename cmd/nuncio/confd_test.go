package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

// confdDir writes a directory of confd whose template shows the key /prod/app/name.
func confdDir(t *testing.T, settings string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"confd.toml":             settings,
		"conf.d/haproxy.toml":    "[template]\nsrc = \"haproxy.tmpl\"\ndest = \"/etc/haproxy/haproxy.cfg\"\nkeys = [\"/app/name\"]\n",
		"templates/haproxy.tmpl": "# {{getv \"/app/name\"}}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func renderConfd(t *testing.T, dir string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = Main(append([]string{"render", "--confd=" + dir}, args...), nil, strings.NewReader(""), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

// confd.toml's way to etcd: nodes, certificates and the prefix; and a flag that wins.
func TestConfdReachesASecureEtcd(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	server := testkit.StartSecureEtcd(t, pki)
	cert, key := pki.Issue("confd")
	writer, err := etcd.Dial(etcd.Config{Endpoints: []string{server.Endpoint}, CAFile: pki.CA, CertFile: cert, KeyFile: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.Put(t.Context(), "/prod/app/name", "secure"); err != nil {
		t.Fatal(err)
	}
	settings := fmt.Sprintf("backend = \"etcdv3\"\nprefix = \"/prod\"\nnodes = [%q]\nclient_cakeys = %q\nclient_cert = %q\nclient_key = %q\n", server.Endpoint, pki.CA, cert, key)
	if code, out, errs := renderConfd(t, confdDir(t, settings)); code != exitOK || out != "# secure\n" {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}

	plain := testkit.StartEtcd(t)
	plain.Put("/stage/app/name", "by a flag")
	if code, out, errs := renderConfd(t, confdDir(t, settings), "--etcd-endpoints="+plain.Endpoint, "--confd-prefix=/stage"); code != exitOK || out != "# by a flag\n" {
		t.Errorf("with flags: exit code %d, %q, %s", code, out, errs)
	}
}

func TestConfdReachesAnEtcdWithAuthentication(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/prod/app/name", "with a password")
	server.EnableAuth("reader", "s3cret", "/prod/")
	settings := fmt.Sprintf("prefix = \"/prod\"\nnodes = [%q]\nbasic_auth = true\nusername = \"reader\"\npassword = \"s3cret\"\n", strings.TrimPrefix(server.Endpoint, "http://"))
	if code, out, errs := renderConfd(t, confdDir(t, settings)); code != exitOK || out != "# with a password\n" {
		t.Errorf("exit code %d, %q, %s", code, out, errs)
	}
	code, _, errs := renderConfd(t, confdDir(t, strings.ReplaceAll(settings, "s3cret", "wrong")))
	if code != exitStart || strings.Contains(errs, "wrong\"") {
		t.Errorf("with a wrong password: exit code %d, %s", code, errs)
	}
}
