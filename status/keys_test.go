package status_test

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// keyLines returns a certificate with its key, and the lines of the key that nothing may show.
func keyLines(t *testing.T, name string) (pem string, secret []string) {
	t.Helper()
	cert, key := testkit.NewPKI(t).Issue(name)
	public, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	private, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(private)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			secret = append(secret, line)
		}
	}
	if len(secret) < 2 {
		t.Fatalf("a key of %d lines", len(secret))
	}
	return string(public) + string(private), secret
}

// TestNoEndpointShowsAKey has keys wherever a set of files or a record can hold one, and asks for every path there is.
func TestNoEndpointShowsAKey(t *testing.T) {
	w := newEnv(t, nil)
	old, oldSecret := keyLines(t, "www.example.com")
	renewed, secret := keyLines(t, "www.example.com")
	secret = append(append(secret, oldSecret...), "c2VjcmV0IG9mIHRpY2tldHM=", "hunter2-in-a-file")
	set := func(pem, tickets string) haproxy.Files {
		config := then + "\tbind :1 ssl crt certs tls-ticket-keys tickets.lst ca-file authority.map\n"
		f, err := haproxy.NewFiles(map[string][]byte{
			haproxy.ConfigFile: []byte(config), "certs/site.pem": []byte(pem), "certs/site.key": []byte(pem), "tickets.lst": []byte(tickets),
			"authority.map": []byte(pem), "maps/mistake.map": []byte("a b\n" + pem), "more.cfg": []byte("# " + pem), "errors/503.http": []byte(pem),
			"passwords.txt": []byte("hunter2-in-a-file " + pem), "lua/x.lua": []byte("key = [[" + pem + "]]"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	oneLine := strings.ReplaceAll(renewed, "\n", " ")
	w.put("web/a", `{"host":"192.0.2.7","port":1,"tags":["`+oneLine+`"],"meta":{"http.cert":"`+oneLine+`"}}`,
		"web/b", `{"host":"192.0.2.8","port":1,"meta":{"http.cert":"x `+oneLine+`"}}`,
		"web/c", renewed, "web/d", `{"host":"`+oneLine+`","port":1}`, "web/e", `{"host":"192.0.2.9","port":"`+oneLine+`"}`)
	w.change(func(s *sources) {
		s.generations = map[int64]haproxy.Files{1: set(old, "c2VjcmV0IG9mIHRpY2tldHM=\n"), 2: set(renewed, "other\n")}
		s.desired = set(old, "c2VjcmV0IG9mIHRpY2tldHM=\n")
		s.applier.AppliedDigest = s.generations[2].Digest()
	})
	asked := 0
	for _, pattern := range w.Server.Patterns() {
		method, path, _ := strings.Cut(pattern, " ")
		if method != http.MethodGet {
			t.Errorf("%s: the listener only reads", pattern)
		}
		path = strings.NewReplacer("{$}", "", "{file}", "page.css").Replace(path)
		for _, query := range []string{"", "?from=1&to=2", "?from=2&to=1", "?from=2&to=desired", "?from=running&to=desired", "?q=web", "?q=" + url.QueryEscape(secret[0])} {
			body := readBriefly(t, w.URL+path+query)
			asked++
			for _, line := range append(secret, "PRIVATE KEY-----") {
				// The page repeats what was searched for.
				if strings.Contains(body, line) && !strings.Contains(query, url.QueryEscape(line)) {
					t.Errorf("GET %s%s shows %q", path, query, line)
				}
			}
		}
	}
	if asked < 60 {
		t.Errorf("only %d requests", asked)
	}
	// What is shown instead.
	body := readBriefly(t, w.URL+"/v1/diff?from=1&to=2")
	for _, want := range []string{`"-` + "", "certificate 127.", "with a private key", "sha256 ", `"file": "certs/site.pem"`} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is missing in\n%s", want, body)
		}
	}
	// Configuration stays readable.
	if body := readBriefly(t, w.URL+"/v1/services?q=a"); !strings.Contains(body, `"http.cert": "[hidden]"`) {
		t.Errorf("the setting is not shown as hidden:\n%s", body)
	}
}

// readBriefly reads what comes within a moment: an event stream does not end.
func readBriefly(t *testing.T, url string) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	if strings.Contains(url, "/v1/events") {
		client.Timeout = 300 * time.Millisecond
	}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body) // as far as it came
	return string(body)
}

func TestQuarantineKeepsKeysToItself(t *testing.T) {
	pem, secret := keyLines(t, "x")
	b := catalog.NewBuilder(catalog.BuilderOptions{Prefix: "/services/"})
	b.Put("/services/web/a", []byte(pem))
	b.Put("/services/web/b", []byte(`{"host":"x y `+strings.ReplaceAll(pem, "\n", " ")+`","port":1}`))
	for _, q := range b.Snapshot(1).Quarantined {
		for _, line := range secret {
			if strings.Contains(q.Reason+q.Detail+q.Value, line) {
				t.Errorf("%+v shows %q", q, line)
			}
		}
	}
}
