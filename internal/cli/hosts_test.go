package cli_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"nuncio/internal/cli"
)

func TestKnownHosts(t *testing.T) {
	const loopback, open = "127.0.0.1:9090", "0.0.0.0:9090"
	for _, tt := range []struct {
		listener, host string
		names          []string
		passes         bool
	}{
		{loopback, "127.0.0.1:9090", nil, true},
		{loopback, "[::1]:9090", nil, true},
		{loopback, "[::1]", nil, true},
		{loopback, "localhost:9090", nil, true},
		{loopback, "LocalHost.", nil, true},
		{loopback, "page.localhost:9090", nil, true},
		{loopback, "", nil, true},
		{loopback, "evil.example.com:9090", nil, false},
		{loopback, "evil.example.com", nil, false},
		{loopback, "notlocalhost", nil, false},
		{loopback, "localhost.example.com", nil, false},
		{loopback, "127.0.0.1.example.com", nil, false},
		{"[::1]:9090", "evil.example.com", nil, false},
		{"[::ffff:127.0.0.1]:9090", "evil.example.com", nil, false},
		{open, "any.example.com", nil, true},
		{open, "any.example.com", []string{"proxy.example.com"}, false},
		{open, "Proxy.Example.Com:9090", []string{"proxy.example.com"}, true},
		{open, "proxy.example.com.", []string{"proxy.example.com"}, true},
		{open, "192.0.2.1:9090", []string{"proxy.example.com"}, true},
		{loopback, "proxy.example.com", []string{"proxy.example.com"}, true},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.listener)
		if err != nil {
			t.Fatal(err)
		}
		page := cli.KnownHosts(addr, tt.names, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
		r := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
		r.Host = tt.host
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		want := http.StatusForbidden
		if tt.passes {
			want = http.StatusNoContent
		}
		if w.Code != want {
			t.Errorf("%s, asked for %q with names %q: status %d, want %d", tt.listener, tt.host, tt.names, w.Code, want)
		}
	}
}
