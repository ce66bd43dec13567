package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" // HAProxy shows this fingerprint; it protects nothing here
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Certificate is what may be shown of a certificate.
type Certificate struct {
	Names       []string // DNS names and addresses it is for; the common name if it has none
	Issuer      string
	Serial      string // in hexadecimal, upper case, as HAProxy shows it
	Fingerprint string // SHA-1, in hexadecimal, upper case, as HAProxy shows it
	NotBefore   time.Time
	NotAfter    time.Time
	KeyType     string // RSA, ECDSA or Ed25519
}

// short returns the first names.
func (c Certificate) short() []string {
	const most = 3
	if len(c.Names) > most {
		return append(c.Names[:most:most], "...")
	}
	return c.Names
}

// Unit is a certificate with its private key and chain: what HAProxy serves as one.
type Unit struct {
	Certificate
	text string
}

// ErrUnsure is wrapped by errors about something that this package cannot read and another program perhaps can, such as a key on
// a curve that Go does not know.
var ErrUnsure = errors.New("not understood")

// Parse reads a unit: one or more certificates, the first of which is served, and its private key, in any order. The error says
// what is wrong, and never quotes the text.
func Parse(text string) (Unit, error) {
	if strings.TrimSpace(text) == "" {
		return Unit{}, errors.New("the file is empty")
	}
	chain, key, err := blocks(text)
	switch {
	case err != nil:
		return Unit{}, err
	case len(chain) == 0:
		return Unit{}, errors.New("it holds no certificate in PEM")
	case key == nil:
		return Unit{}, errors.New("it holds no private key")
	}
	var certificates bytes.Buffer
	for _, c := range chain {
		_ = pem.Encode(&certificates, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // to memory
	}
	if _, err := tls.X509KeyPair(certificates.Bytes(), pem.EncodeToMemory(key)); err != nil {
		if strings.Contains(key.Type, "ENCRYPTED") || key.Headers["Proc-Type"] != "" {
			return Unit{}, errors.New("its private key is encrypted, and HAProxy cannot ask for a password")
		}
		// The errors of crypto/tls name algorithms and structure only, and have no types.
		if strings.Contains(err.Error(), "does not match") {
			return Unit{}, errors.New("its private key is that of another certificate")
		}
		return Unit{}, fmt.Errorf("key and certificate: %w: %s", ErrUnsure, strings.TrimPrefix(err.Error(), "tls: "))
	}
	return Unit{describe(chain[0]), text}, nil
}

// PEM returns the text of the unit, with its key, in lines for a command of HAProxy: without empty ones, which would end its
// payload, and without what is outside of the blocks.
func (u Unit) PEM() []string { return Lines(u.text) }

// Lines returns the blocks of a PEM text, line by line.
func Lines(text string) []string {
	var lines []string
	within := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		within = within || strings.HasPrefix(line, "-----BEGIN ")
		if within && line != "" {
			lines = append(lines, line)
		}
		within = within && !strings.HasPrefix(line, "-----END ")
	}
	return lines
}

// blocks reads a PEM text. Blocks of other kinds, such as DH parameters, are passed over.
func blocks(text string) (chain []*x509.Certificate, key *pem.Block, err error) {
	rest := []byte(text)
	for {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		switch {
		case b.Type == "CERTIFICATE":
			c, err := x509.ParseCertificate(b.Bytes)
			if err != nil {
				return nil, nil, fmt.Errorf("certificate %d of the file: %w: %s", len(chain)+1, ErrUnsure, err.Error())
			}
			chain = append(chain, c)
		case strings.HasSuffix(b.Type, "PRIVATE KEY") && key == nil:
			key = b
		}
	}
	// pem.Decode skips a block that is cut off or broken, and HAProxy does not.
	if begun := strings.Count(text, "-----BEGIN CERTIFICATE-----"); begun > len(chain) {
		return nil, nil, fmt.Errorf("%d of its %d certificates are broken or cut off", begun-len(chain), begun)
	}
	return chain, key, nil
}

// Leaf reads the first certificate of a text, without a look at its key.
func Leaf(text string) (Certificate, bool) {
	for rest := []byte(text); ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return Certificate{}, false
		}
		if b.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			return Certificate{}, false
		}
		return describe(c), true
	}
}

// Authorities reads a file of certificates without keys, such as a ca-file, and returns them in order.
func Authorities(text string) ([]Certificate, error) {
	chain, _, err := blocks(text)
	if err == nil && len(chain) == 0 {
		err = errors.New("it holds no certificate in PEM")
	}
	if err != nil {
		return nil, err
	}
	found := make([]Certificate, len(chain))
	for i, c := range chain {
		found[i] = describe(c)
	}
	return found, nil
}

// Revocations checks a file of revocation lists.
func Revocations(text string) error {
	n := 0
	for rest := []byte(text); ; n++ {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			break
		}
		if _, err := x509.ParseRevocationList(b.Bytes); b.Type != "X509 CRL" || err != nil {
			return fmt.Errorf("block %d of the file is no revocation list", n+1)
		}
	}
	if begun := strings.Count(text, "-----BEGIN "); n == 0 || begun > n {
		return errors.New("it holds no revocation list in PEM, or one that is cut off")
	}
	return nil
}

// leaves returns the certificates of a text that are not those of an authority, or all of them if there is no other.
func leaves(text string) (found []Certificate) {
	chain, _, err := blocks(text)
	if err != nil {
		return nil
	}
	for _, c := range chain {
		if !c.IsCA {
			found = append(found, describe(c))
		}
	}
	if len(found) == 0 && len(chain) > 0 {
		for _, c := range chain {
			found = append(found, describe(c))
		}
	}
	return found
}

func describe(c *x509.Certificate) Certificate {
	sum := sha1.Sum(c.Raw)
	d := Certificate{
		Names: c.DNSNames, Issuer: c.Issuer.CommonName, Serial: fmt.Sprintf("%X", c.SerialNumber),
		Fingerprint: strings.ToUpper(hex.EncodeToString(sum[:])), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
	if len(d.Serial)%2 == 1 {
		d.Serial = "0" + d.Serial
	}
	for _, ip := range c.IPAddresses {
		d.Names = append(d.Names, ip.String())
	}
	if len(d.Names) == 0 {
		d.Names = []string{c.Subject.CommonName}
	}
	if d.Issuer == "" {
		d.Issuer = c.Issuer.String()
	}
	switch c.PublicKey.(type) {
	case *rsa.PublicKey:
		d.KeyType = "RSA"
	case *ecdsa.PublicKey:
		d.KeyType = "ECDSA"
	case ed25519.PublicKey:
		d.KeyType = "Ed25519"
	}
	return d
}
