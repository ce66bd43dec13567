package main_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"testing"

	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
)

// TestDockerBehindTLS reaches Docker over TCP, where only clients with a certificate are let in.
func TestDockerBehindTLS(t *testing.T) {
	t.Parallel()
	pki := testkit.NewPKI(t)
	cert, key := pki.Issue("docker")
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(pki.CA)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(authority)
	addr := testkit.FreeAddr(t)
	listener, err := tls.Listen("tcp", addr, &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.Out.URL.Scheme, p.Out.URL.Host = "http", "docker" },
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", "/var/run/docker.sock")
		}},
		FlushInterval: -1, // events have to arrive at once
	}}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { server.Close() })

	s := newEnv(t)
	c := containers.Connect(t, "").Run(t, containers.Spec{Labels: s.label("web"), Publish: []string{"80"}})
	own, ownKey := pki.Issue("registrar")
	start(t, nil, "nuncio-registrar", s.run("--docker-host=tcp://"+addr, "--docker-ca="+pki.CA, "--docker-cert="+own, "--docker-key="+ownKey)...)
	s.expect("registered", map[string]string{"web/n1:" + c.Name: begins(c.Addr(80))})
	c.Kill("KILL")
	s.expect("killed", nil)

	unknown := start(t, nil, "nuncio-registrar", s.run("--docker-host=tcp://"+addr, "--docker-ca="+pki.CA, "--once", "--timeout=2s", "--node=n2")...)
	if code := unknown.code(); code != 4 && code != 3 {
		t.Errorf("without a certificate: exit code %d, want 3 or 4", code)
	}
}
