package status_test

import (
	"net"
	"net/http"
	"testing"

	"nuncio/status"
)

func TestAStrangersNameIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, listen string
		names        []string
		host         string
		code         int
	}{
		{"a page that rebinds its name", "127.0.0.1:0", nil, "evil.example.com", 403},
		{"with a port", "127.0.0.1:0", nil, "evil.example.com:8404", 403},
		{"with localhost in it", "127.0.0.1:0", nil, "localhost.example.com", 403},
		{"an address in a name", "127.0.0.1:0", nil, "127.0.0.1.example.com", 403},
		{"the address", "127.0.0.1:0", nil, "127.0.0.1:8404", 200},
		{"IPv6", "127.0.0.1:0", nil, "[::1]:8404", 200},
		{"IPv6 without a port", "127.0.0.1:0", nil, "[::1]", 200},
		{"localhost, as through an SSH tunnel", "127.0.0.1:0", nil, "LocalHost:9000", 200},
		{"a name below localhost", "127.0.0.1:0", nil, "nuncio.localhost", 200},
		{"a given name", "127.0.0.1:0", []string{"Proxy1.example.com"}, "proxy1.example.com:80", 200},
		{"another name", "127.0.0.1:0", []string{"proxy1.example.com"}, "proxy2.example.com", 403},
		{"open to others: any name", "0.0.0.0:0", nil, "proxy1.example.com", 200},
		{"open to others, by given names only", "0.0.0.0:0", []string{"proxy1.example.com"}, "evil.example.com", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp4", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			options := newEnv(t, nil).options(nil)
			options.Hosts = c.names
			serve(t, status.New(options), l)
			_, port, _ := net.SplitHostPort(l.Addr().String())
			for _, path := range []string{"/readyz", "/metrics"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = c.host
				resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if resp.StatusCode != c.code {
					t.Errorf("%s for %s: %d, want %d", path, c.host, resp.StatusCode, c.code)
				}
			}
		})
	}
}
