package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

// TestCertificateRenewal has an etcd that requires client certificates. nuncio's expires, which /readyz must report with
// the reason; replacing the file must be enough, without a restart.
func TestCertificateRenewal(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	server := testkit.StartSecureEtcd(t, pki)
	ownCert, ownKey := pki.Issue("writer")
	writer, err := etcd.Dial(etcd.Config{Endpoints: []string{server.Endpoint}, CAFile: pki.CA, CertFile: ownCert, KeyFile: ownKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { writer.Close() })
	e := newEnv(t, testkit.OneHAProxy(t))
	e.client = writer
	cert, key := pki.Issue("nuncio")
	e.args = slices.DeleteFunc(e.args, func(a string) bool { return strings.HasPrefix(a, "--etcd-endpoints=") })
	e.args = append(e.args, "--etcd-endpoints="+server.Endpoint, "--etcd-ca="+pki.CA, "--etcd-cert="+cert, "--etcd-key="+key)
	serves := func(n int) {
		t.Helper()
		testkit.Eventually(t, 60*time.Second, func() error {
			got, err := e.get()
			if want := fmt.Sprintf("web%d", n); err == nil && got != want {
				err = fmt.Errorf("%q answers, want %q", got, want)
			}
			return err
		})
	}
	e.put("web/a", e.webs[0].Addr)
	e.start()
	serves(0)

	pki.Expired("nuncio")
	server.Stop()
	server.Start()
	testkit.Eventually(t, 60*time.Second, func() error {
		body, err := readyz(e)
		if err == nil && (!strings.Contains(body, "expired") || !strings.Contains(body, "--etcd-cert")) {
			err = fmt.Errorf("/readyz says %q, want the reason and the setting", body)
		}
		return err
	})
	e.put("web/a", e.webs[1].Addr)
	serves(0)
	pki.Issue("nuncio")
	serves(1)
}

func readyz(e *env) (string, error) {
	resp, err := http.Get("http://" + e.admin + "/readyz")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	buf := make([]byte, 8<<10)
	n, _ := resp.Body.Read(buf) // a short answer comes at once
	return string(buf[:n]), nil
}
