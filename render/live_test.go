package render_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// named is a web server that answers with its name.
func named(t *testing.T, name string) (addr string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", name, r.Header.Get("X-Forwarded-Proto"))
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func record(t *testing.T, addr, meta string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"host":%q,"port":%s,"meta":{%s}}`, host, port, meta)
}

// ask sends a request for a host and path and returns status and body.
func ask(t *testing.T, client *http.Client, addr, host, path string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestShippedTemplatesRoute(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		httpAddr, metrics, tcp := testkit.FreeAddr(t), testkit.FreeAddr(t), testkit.FreeAddr(t)
		_, tcpPort, err := net.SplitHostPort(tcp)
		if err != nil {
			t.Fatal(err)
		}
		records := map[string]string{
			"/services/api/1":   record(t, named(t, "api"), `"http.path":"/api,/v2/api","check.path":"/x"`),
			"/services/deep/1":  record(t, named(t, "deep"), `"http.path":"/api/deep"`),
			"/services/www/1":   record(t, named(t, "www"), `"http.host":"www.example.com,example.com"`),
			"/services/admin/1": record(t, named(t, "admin"), `"http.host":"www.example.com","http.path":"/admin"`),
			"/services/shop/1":  record(t, named(t, "shop"), `"http.host":"*.shop.example.com"`),
			"/services/raw/1":   record(t, named(t, "raw"), `"tcp.port":"`+tcpPort+`"`),
			"/services/rest/1":  record(t, named(t, "rest"), ``),
			"/services/down/1":  record(t, testkit.FreeAddr(t), `"http.host":"down.example.com"`),
			"/services/maint/1": strings.TrimSuffix(record(t, named(t, "maint"), `"http.host":"maint.example.com"`), "}") + `,"state":"maint"}`,
		}
		settings := map[string]string{"http.bind": httpAddr, "metrics.bind": metrics, "tcp.address": testkit.Host()}
		h.Start(t, put(t, shipped(t, snapshot(records), settings).Files), httpAddr)
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for _, tt := range []struct{ addr, host, path, want string }{
			{httpAddr, "www.example.com", "/", "www http"},
			{httpAddr, "WWW.Example.com:8080", "/any", "www http"},
			{httpAddr, "example.com", "/", "www http"},
			{httpAddr, "www.example.com", "/admin", "admin http"},
			{httpAddr, "www.example.com", "/admin/x?y=/z", "admin http"},
			{httpAddr, "www.example.com", "/administrator", "www http"},
			{httpAddr, "www.example.com", "/api", "www http"},
			{httpAddr, "a.shop.example.com", "/", "shop http"},
			{httpAddr, "a.b.shop.example.com", "/", "rest http"},
			{httpAddr, "other", "/api/1", "api http"},
			{httpAddr, "other", "/v2/api", "api http"},
			{httpAddr, "other", "/api/deep/er", "deep http"},
			{httpAddr, "other", "/apiary", "rest http"},
			{httpAddr, "other", "/", "rest http"},
			{tcp, "other", "/", "raw "},
		} {
			if status, body := ask(t, client, tt.addr, tt.host, tt.path); status != http.StatusOK || body != tt.want {
				t.Errorf("http://%s%s: %d %q, want %q", tt.host, tt.path, status, body, tt.want)
			}
		}
		for _, host := range []string{"down.example.com", "maint.example.com"} {
			if status, body := ask(t, client, httpAddr, host, "/"); status != http.StatusServiceUnavailable || !strings.Contains(body, "No server is available for this request.") {
				t.Errorf("%s: %d %q, want the shipped 503 page", host, status, body)
			}
		}
		if status, body := ask(t, client, metrics, "localhost:8405", "/metrics"); status != http.StatusOK || !strings.Contains(body, "haproxy_server_status") {
			t.Errorf("metrics: %d %.200q", status, body)
		}
		if status, body := ask(t, client, metrics, "localhost", "/stats"); status != http.StatusOK || !strings.Contains(body, "nuncio-http") {
			t.Errorf("stats: %d %.200q", status, body)
		}
	})
}

// The path of a health check is an entry of a map, which HAProxy looks up by the name of the backend.
func TestHealthChecksRequestThePathOfTheirService(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		asked := make(chan string, 100)
		s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host + r.URL.Path }))
		t.Cleanup(s.Close)
		addr := testkit.FreeAddr(t)
		records := map[string]string{
			"/services/none/1": record(t, testkit.FreeAddr(t), ``),
			"/services/web/1":  record(t, s.Listener.Addr().String(), `"check.path":"/health/%25"`),
		}
		h.Start(t, put(t, shipped(t, snapshot(records), map[string]string{"http.bind": addr, "metrics.bind": "off"}).Files), addr)
		select {
		case got := <-asked:
			if want := "localhost/health/%"; got != want {
				t.Errorf("the health check asked for %s, want %s", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Error("no health check")
		}
	})
}

func TestShippedTemplatesWithoutServicesAnswer503(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		files := shipped(t, snapshot(nil), map[string]string{"http.bind": addr, "metrics.bind": "off"}).Files
		h.Start(t, put(t, files), addr)
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		if status, _ := ask(t, client, addr, "x", "/"); status != http.StatusServiceUnavailable {
			t.Errorf("status %d, want 503", status)
		}
	})
}
