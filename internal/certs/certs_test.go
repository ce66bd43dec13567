package certs_test

import (
	"os"
	"strings"
	"testing"

	"nuncio/internal/certs"
	"nuncio/internal/testkit"
)

// pair returns a certificate and its key, each in PEM.
func pair(t *testing.T, pki *testkit.PKI, name string) (cert, key string) {
	t.Helper()
	certFile, keyFile := pki.Issue(name)
	for file, text := range map[string]*string{certFile: &cert, keyFile: &key} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		*text = string(b)
	}
	return cert, key
}

func TestParse(t *testing.T) {
	pki := testkit.NewPKI(t)
	cert, key := pair(t, pki, "a")
	_, other := pair(t, pki, "b")
	ca, err := os.ReadFile(pki.CA)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text, problem string }{
		{"certificate, key", cert + key, ""},
		{"key, certificate", key + cert, ""},
		{"with a chain and empty lines", "\n" + cert + "\n\n" + string(ca) + "\n" + key + "\n# a remark\n", ""},
		{"Windows line ends", strings.ReplaceAll(cert+key, "\n", "\r\n"), ""},
		{"empty", " \n", "empty"},
		{"no key", cert, "no private key"},
		{"no certificate", key, "no certificate"},
		{"another certificate's key", cert + other, "another certificate"},
		{"cut off in the key", (cert + key)[:len(cert)+40], "no private key"},
		{"cut off in the certificate", key + cert[:len(cert)/2], "broken or cut off"},
		{"a certificate that is none", key + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not understood"},
		{"no PEM", "hello", "no certificate"},
	} {
		u, err := certs.Parse(c.text)
		switch {
		case c.problem == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)):
			t.Errorf("%s: %v, want %q", c.name, err, c.problem)
		case c.problem == "":
			if u.KeyType != "ECDSA" || len(u.Fingerprint) != 40 || len(u.Names) == 0 {
				t.Errorf("%s: %+v", c.name, u.Certificate)
			}
			for _, line := range u.PEM() {
				if line == "" || strings.ContainsAny(line, "\r\n#") {
					t.Errorf("%s: a command cannot carry the line %q", c.name, line)
				}
			}
		}
	}
}

func TestNoDescriptionAndNoMessageHoldsAKey(t *testing.T) {
	cert, key := pair(t, testkit.NewPKI(t), "a")
	lines := strings.Split(key, "\n")
	described := certs.Describe(cert + key)
	if !strings.Contains(described, "certificate "+testkit.Host()+" until ") || !strings.Contains(described, "with a private key") {
		t.Errorf("got %q", described)
	}
	for _, text := range []string{
		described,
		certs.Redact("key: " + key + " and more"),
		certs.Redact("[ALERT] parsing [haproxy.cfg:3]: unknown keyword '" + lines[1] + "' in 'frontend' section"),
		certs.Redact("cut off: " + key[:len(key)-40]),
	} {
		if strings.Contains(text, lines[1]) || strings.Contains(text, lines[2]) {
			t.Errorf("%q shows the key", text)
		}
	}
	for _, message := range []string{
		"unable to stat SSL certificate from file '/etc/letsencrypt/live/www.example.com/combined.pem' : No such file",
		"in file 'outside/tmp/TestCertificatesOutsideAreFollowedhaproxy/003/certs/dir' : unable",
		"backend aVeryLongNameOfAServiceThatSomebodyHasGivenToItInTwoThousandAndNineteen",
		"sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	} {
		if got := certs.Redact(message); got != message {
			t.Errorf("%q became %q", message, got)
		}
	}
	for text, want := range map[string]bool{cert: false, key: true, "PRIVATE KEY": false, "data: LS0tLS1CRUdJTiBQUklW": true, "x" + key[3:]: true} {
		if got := certs.HoldsKey(text); got != want {
			t.Errorf("HoldsKey(%.30q) = %v", text, got)
		}
	}
}
