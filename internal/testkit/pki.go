package testkit

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
	p.CA = p.write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
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
	certPEM, keyPEM := p.make(name, left, nil)
	return p.write(name+".pem", certPEM), p.write(name+".key", keyPEM)
}

// Server returns a new certificate for a server with these names, and its key, as one PEM text.
func (p *PKI) Server(names ...string) string { return p.ServerFor(time.Hour, names...) }

// ServerFor is Server for a certificate that is valid for as long as left says.
func (p *PKI) ServerFor(left time.Duration, names ...string) string {
	p.t.Helper()
	cert, key := p.make(names[0], left, names)
	return string(cert) + string(key)
}

// Weak returns a certificate for a server with a key that OpenSSL considers too short and Go does not, and the key.
func (p *PKI) Weak(name string) string {
	p.t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 1024)
	p.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &private.PublicKey, p.key)
	p.must(err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}))
}

// Authority returns the authority's certificate as PEM text.
func (p *PKI) Authority() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw}))
}

// Serial returns the serial number of the first certificate of a PEM text, for a comparison with Served.
func (p *PKI) Serial(text string) string {
	p.t.Helper()
	b, _ := pem.Decode([]byte(text))
	c, err := x509.ParseCertificate(b.Bytes)
	p.must(err)
	return c.SerialNumber.String()
}

// Served connects as a client of this authority to the server with a name, and returns the serial number of the certificate
// that it shows.
func (p *PKI) Served(addr, name string) (serial string, err error) {
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	c, err := tls.DialWithDialer(dialer, "tcp", addr, &tls.Config{RootCAs: p.Roots(), ServerName: name})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// Roots returns what a client of this authority trusts.
func (p *PKI) Roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.cert)
	return pool
}

func (p *PKI) make(name string, left time.Duration, dns []string) (certPEM, keyPEM []byte) {
	p.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	p.must(err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: dns,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left),
		IPAddresses: []net.IP{net.ParseIP(Host())}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if dns != nil {
		template.IPAddresses = nil
	}
	private := p.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, p.cert, &private.PublicKey, p.key)
	p.must(err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	p.must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (p *PKI) client() *tls.Config {
	cert, key := p.Issue("health")
	pair, err := tls.LoadX509KeyPair(cert, key)
	p.must(err)
	return &tls.Config{RootCAs: p.Roots(), Certificates: []tls.Certificate{pair}}
}

func (p *PKI) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p.must(err)
	return key
}

func (p *PKI) write(name string, text []byte) string {
	path := filepath.Join(p.dir, name)
	p.must(os.WriteFile(path, text, 0o600))
	return path
}

func (p *PKI) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}
