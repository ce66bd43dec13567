package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// Config says how to reach etcd. Only Endpoints is required.
type Config struct {
	// Endpoints are host:port, http://host:port or https://host:port. One without a scheme is https when a TLS setting
	// or another endpoint says so.
	Endpoints []string
	// CAFile holds the certificates, in PEM, of the authorities that may sign the server's certificate. Without it the
	// system's are used.
	CAFile string
	// CertFile and KeyFile are the client's certificate and its key, in PEM; both or neither.
	CertFile, KeyFile string
	// User needs PasswordFile or Password. Line breaks at the end of the file do not belong to the password.
	User, PasswordFile, Password string
}

// Validate checks the settings without contacting the server. Its error names the setting.
func (c Config) Validate() error {
	_, err := c.resolve()
	return err
}

// resolved is a Config whose files have been read once.
type resolved struct {
	endpoints []string
	secure    bool
	password  string
}

func (c Config) resolve() (resolved, error) {
	secure, err := c.secure()
	if err != nil {
		return resolved{}, err
	}
	r := resolved{secure: secure}
	for _, e := range c.Endpoints {
		address := e
		if _, rest, ok := strings.Cut(e, "://"); ok {
			address = rest
		}
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		r.endpoints = append(r.endpoints, scheme+strings.TrimSuffix(address, "/"))
	}
	if secure {
		if _, err := c.tlsConfig(); err != nil {
			return resolved{}, err
		}
	}
	r.password, err = c.password()
	return r, err
}

// secure reports whether connections use TLS; endpoints that disagree are an error.
func (c Config) secure() (bool, error) {
	if len(c.Endpoints) == 0 {
		return false, errors.New("etcd endpoints: none given; one or more such as 127.0.0.1:2379 are needed")
	}
	var plain, secure string
	for _, e := range c.Endpoints {
		scheme, err := checkEndpoint(e)
		if err != nil {
			return false, err
		}
		switch scheme {
		case "http":
			plain = e
		case "https":
			secure = e
		}
	}
	var setting string
	for _, s := range []struct{ name, value string }{{"etcd CA", c.CAFile}, {"etcd cert", c.CertFile}, {"etcd key", c.KeyFile}} {
		if s.value != "" && setting == "" {
			setting = s.name
		}
	}
	switch {
	case plain != "" && secure != "":
		return false, fmt.Errorf("etcd endpoints: %q and %q: either all use http or all use https", plain, secure)
	case plain != "" && setting != "":
		return false, fmt.Errorf("%s: it has no effect on the http endpoint %q; write https://", setting, plain)
	}
	return secure != "" || setting != "", nil
}

func checkEndpoint(endpoint string) (scheme string, err error) {
	wrong := func(why string) error {
		return fmt.Errorf("etcd endpoints: %q %s; host:port, http://host:port or https://host:port is needed", endpoint, why)
	}
	address := endpoint
	if strings.Contains(endpoint, "://") {
		u, err := url.Parse(endpoint)
		switch {
		case err != nil:
			return "", wrong("is not a URL")
		case u.Scheme != "http" && u.Scheme != "https":
			return "", wrong("has the scheme " + strconv.Quote(u.Scheme))
		case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
			return "", wrong("has more than a scheme and an address")
		}
		scheme, address = u.Scheme, u.Host
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", wrong("has no port or too many colons")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", wrong("has the port " + strconv.Quote(port))
	}
	if host == "" || strings.ContainsAny(host, " ,/@\t\r\n") {
		return "", wrong("has no usable host")
	}
	return scheme, nil
}

func (c Config) password() (string, error) {
	switch {
	case c.User == "" && c.PasswordFile != "":
		return "", errors.New("etcd password file: given without an etcd user")
	case c.User == "":
		return "", nil
	case c.PasswordFile == "" && c.Password != "":
		return c.Password, nil
	case c.PasswordFile == "":
		return "", errors.New("etcd user: given without a password; name a file with --etcd-password-file")
	}
	text, err := os.ReadFile(c.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("etcd password file: %w", err)
	}
	password := strings.TrimRight(string(text), "\r\n")
	if password == "" {
		return "", fmt.Errorf("etcd password file: %s is empty", c.PasswordFile)
	}
	return password, nil
}

// tlsConfig reads the certificates from disk.
func (c Config) tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd CA: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd CA: %s holds no PEM certificate", c.CAFile)
		}
	}
	switch {
	case c.CertFile != "" && c.KeyFile == "":
		return nil, errors.New("etcd cert: given without its key; set the etcd key too")
	case c.CertFile == "" && c.KeyFile != "":
		return nil, errors.New("etcd key: given without its certificate; set the etcd cert too")
	case c.CertFile != "":
		pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd cert and key: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
