package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// PKI is a certificate authority in a directory of the test's own.
type PKI struct {
	CA string // the authority's certificate, PEM

	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewPKI creates an authority.
func NewPKI(t testing.TB) *PKI {
	t.Helper()
	p := &PKI{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	p.key = p.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &p.key.PublicKey, p.key)
	p.must(err)
	p.cert, err = x509.ParseCertificate(der)
	p.must(err)
	p.CA = p.write("ca.pem", "CERTIFICATE", der)
	return p
}

// Issue writes a certificate for name, valid for servers at Host and for clients, and its key. Issuing the same
// name again replaces both files, as a renewal does.
func (p *PKI) Issue(name string) (cert, key string) {
	p.t.Helper()
	return p.issue(name, time.Hour)
}

// Expired replaces the certificate of Issue by one that expired a minute ago.
func (p *PKI) Expired(name string) (cert, key string) {
	p.t.Helper()
	return p.issue(name, -time.Minute)
}

func (p *PKI) issue(name string, left time.Duration) (cert, key string) {
	p.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	p.must(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left),
		IPAddresses: []net.IP{net.ParseIP(Host())}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	private := p.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &private.PublicKey, p.key)
	p.must(err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	p.must(err)
	return p.write(name+".pem", "CERTIFICATE", der), p.write(name+".key", "EC PRIVATE KEY", keyDER)
}

func (p *PKI) client() *tls.Config {
	cert, key := p.Issue("health")
	pair, err := tls.LoadX509KeyPair(cert, key)
	p.must(err)
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}
}

func (p *PKI) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	return key
}

func (p *PKI) write(name, kind string, der []byte) string {
	path := filepath.Join(p.dir, name)
	p.must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

func (p *PKI) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
