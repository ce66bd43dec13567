package main

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/testkit"
)

// config puts a key outside the records.
func (l *labels) config(key, value string) {
	l.t.Helper()
	if _, err := l.client.Do(l.t.Context(), clientv3.OpPut("/config/"+key, value)); err != nil {
		l.t.Fatal(err)
	}
}

// wants waits until a request is answered with a status and, where name is not empty, by a service.
func (l *labels) wants(status int, name string, host, path string, headers ...string) answer {
	l.t.Helper()
	var last answer
	l.until(fmt.Sprintf("%d by %q for %s%s", status, name, host, path), func() (answer, error) { return l.get(host, path, headers...) }, func(a answer) bool {
		last = a
		return a.status == status && (name == "" || a.echo.Name == name)
	})
	return last
}

// TestLabels sends requests to services that use what docs/labels.md lists: what each gives, what a wrong value leaves, and a
// change of what is data, which needs no reload.
func TestLabels(t *testing.T) {
	t.Parallel()
	oldestAndNewest(t, func(t *testing.T, h testkit.HAProxy) {
		l := newLabels(t, h, "zone=a;trusted.proxies=127.0.0.9,127.0.0.8", "--keys=/config/")
		tests := maps.Clone(labelTests)
		maps.Copy(tests, moreLabelTests)
		for name, test := range tests {
			l.service(name+"-none", "http.host", name+"-none.example") // who does not ask for it
			test.setUp(l)
		}
		l.start()
		l.serves("strip-none.example", "strip-none")
		for name, test := range tests {
			t.Run(name, func(t *testing.T) {
				l.t = t
				test.run(l)
				l.serves(name+"-none.example", name+"-none")
			})
		}
	})
}

type labelTest struct{ setUp, run func(l *labels) }

const fromTLS = "X-Forwarded-Proto: https"

var labelTests = map[string]labelTest{
	"redirect": {
		func(l *labels) {
			l.service("redirect", "http.host", "redirect.example", "http.redirect", "https")
			l.service("redirect-bad", "http.host", "redirect-bad.example", "http.redirect", "yes")
		},
		func(l *labels) {
			a := l.wants(308, "", "redirect.example", "/a/b?c=d")
			if got := a.header.Get("Location"); got != "https://redirect.example/a/b?c=d" {
				l.t.Errorf("location %q", got)
			}
			l.wants(200, "redirect", "redirect.example", "/.well-known/acme-challenge/x")
			if a, err := l.raw("127.0.0.9", "GET / HTTP/1.1\r\nHost: redirect.example\r\n"+fromTLS+"\r\nConnection: close\r\n\r\n"); err != nil || a.status != 200 {
				l.t.Errorf("a request that came by https: %v, %v", a, err)
			}
			l.wants(308, "", "redirect.example", "/", fromTLS) // anybody can say so
			l.wants(200, "redirect-bad", "redirect-bad.example", "/")
			l.unmet("redirect-bad", "http.redirect")
			l.withoutReload(func() {
				l.service("redirect", "http.host", "redirect.example", "http.redirect", "none")
				l.wants(200, "redirect", "redirect.example", "/")
			})
		},
	},
	"canonical": {
		func(l *labels) {
			l.service("canonical", "http.host", "www.canonical.example,canonical.example", "http.canonical", "www.canonical.example")
			l.service("canonical-bad", "http.host", "canonical-bad.example", "http.canonical", "a/b")
		},
		func(l *labels) {
			a := l.wants(308, "", "canonical.example:8080", "/a?b")
			if got := a.header.Get("Location"); got != "http://www.canonical.example:8080/a?b" {
				l.t.Errorf("location %q", got)
			}
			l.wants(200, "canonical", "WWW.canonical.example", "/")
			l.wants(200, "canonical-bad", "canonical-bad.example", "/")
			l.unmet("canonical-bad", "http.canonical")
			l.withoutReload(func() {
				l.service("canonical", "http.host", "www.canonical.example,canonical.example", "http.canonical", "canonical.example")
				l.wants(200, "canonical", "canonical.example", "/")
				l.wants(308, "", "www.canonical.example", "/")
			})
		},
	},
	"strip": {
		func(l *labels) {
			l.service("strip", "http.host", "strip.example", "http.path", "/api,/v2/api", "http.strip", "true")
			l.service("strip-bad", "http.host", "strip-bad.example", "http.path", "/api", "http.strip", "yes")
		},
		func(l *labels) {
			for path, want := range map[string]string{
				"/api": "/ /api", "/api/": "/ /api", "/api/a/b?c=/d": "/a/b?c=/d /api", "/v2/api/x": "/x /v2/api", "//api//x": "/x /api", "/api/%2e": "400", "/api/a%20b": "/a%20b /api",
			} {
				a, err := l.get("strip.example", path, "X-Forwarded-Prefix: /lie")
				got := a.echo.URI + " " + a.echo.Header.Get("X-Forwarded-Prefix")
				if a.status != 200 {
					got = fmt.Sprint(a.status)
				}
				if err != nil || got != want {
					l.t.Errorf("%s: the service got %q, want %q, %v", path, got, want, err)
				}
			}
			if a := l.wants(200, "strip-bad", "strip-bad.example", "/api/x"); a.echo.URI != "/api/x" {
				l.t.Errorf("a wrong value: the service got %q", a.echo.URI)
			}
			l.unmet("strip-bad", "http.strip")
			l.withoutReload(func() {
				l.service("strip", "http.host", "strip.example", "http.path", "/api/v1", "http.strip", "true")
				l.until("/x", func() (answer, error) { return l.get("strip.example", "/api/v1/x") }, func(a answer) bool { return a.echo.URI == "/x" })
				l.service("strip", "http.host", "strip.example", "http.path", "/api/v1")
				l.until("/api/v1/x", func() (answer, error) { return l.get("strip.example", "/api/v1/x") }, func(a answer) bool { return a.echo.URI == "/api/v1/x" })
			})
		},
	},
	"headers": {
		func(l *labels) {
			l.service("headers", "http.host", "headers.example", "http.hsts", "31536000", "http.headers", "secure")
			l.service("headers-bad", "http.host", "headers-bad.example", "http.hsts", "1; x", "http.headers", "all")
		},
		func(l *labels) {
			a := l.wants(200, "headers", "headers.example", "/?set=X-Frame-Options:DENY")
			got := a.header.Get("Strict-Transport-Security") + "|" + a.header.Get("X-Content-Type-Options") + "|" + strings.Join(a.header["X-Frame-Options"], ",") + "|" + a.header.Get("Referrer-Policy")
			if got != "|nosniff|DENY|strict-origin-when-cross-origin" {
				l.t.Errorf("headers %s", got)
			}
			tls := func() (answer, error) {
				return l.raw("127.0.0.9", "GET / HTTP/1.1\r\nHost: headers.example\r\n"+fromTLS+"\r\nConnection: close\r\n\r\n")
			}
			hsts := func(want string) {
				l.until(want, tls, func(a answer) bool { return a.header.Get("Strict-Transport-Security") == want })
			}
			hsts("max-age=31536000")
			if a := l.wants(200, "headers-bad", "headers-bad.example", "/"); a.header.Get("X-Frame-Options") != "" {
				l.t.Errorf("wrong values: headers %v", a.header)
			}
			l.unmet("headers-bad", "http.hsts")
			l.unmet("headers-bad", "http.headers")
			l.withoutReload(func() {
				l.service("headers", "http.host", "headers.example", "http.hsts", "60")
				hsts("max-age=60")
			})
			if a := l.wants(200, "headers", "headers.example", "/"); a.header.Get("X-Content-Type-Options") != "" {
				l.t.Errorf("headers that the service no longer asks for: %v", a.header)
			}
		},
	},
	"auth": {
		func(l *labels) {
			// "secret", by openssl passwd -6.
			l.config("users/staff/alice", "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1")
			l.config("users/staff/mallory", "secret")
			l.config("users/other/bob", "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1")
			l.service("auth", "http.host", "auth.example", "http.auth", "staff")
			l.service("auth-gone", "http.host", "auth-gone.example", "http.auth", "nobody")
			l.service("auth-bad", "http.host", "auth-bad.example", "http.auth", "a b")
			l.service("auth-site", "http.host", "auth-site.example")
			l.service("auth-admin", "http.host", "auth-site.example", "http.path", "/admin", "http.auth", "staff")
		},
		func(l *labels) {
			password := func(user, secret string) string {
				return "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret))
			}
			if a := l.wants(401, "", "auth.example", "/"); !strings.Contains(a.header.Get("Www-Authenticate"), `realm="staff"`) {
				l.t.Errorf("headers %v", a.header)
			}
			l.wants(200, "auth", "auth.example", "/", password("alice", "secret"))
			for _, wrong := range []string{password("alice", "Secret"), password("mallory", "secret"), password("bob", "secret"), password("", ""), "Authorization: Bearer x"} {
				l.wants(401, "", "auth.example", "/", wrong)
			}
			for _, path := range []string{"/admin", "//admin", "/%61dmin/", "/admin;x", "/x;y//..;/admin", "/./admin", "/x/../admin", "/x/%2e%2e/admin", "http://auth-site.example/admin"} {
				if a, err := l.get("auth-site.example", path); err != nil || a.status != 401 && a.status != 400 {
					l.t.Errorf("%s without a password: %v, %v", path, a, err)
				}
			}
			l.wants(200, "auth-site", "auth-site.example", "/adminx")
			l.wants(503, "", "auth-gone.example", "/", password("alice", "secret"))
			l.wants(503, "", "auth-bad.example", "/", password("alice", "secret"))
			l.unmet("auth-bad", "http.auth")
			l.withoutReload(func() {
				l.service("auth", "http.host", "auth.example", "http.auth", "other")
				l.wants(200, "auth", "auth.example", "/", password("bob", "secret"))
				l.wants(401, "", "auth.example", "/", password("alice", "secret"))
			})
			l.config("users/nobody/carol", "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1")
			l.wants(200, "auth-gone", "auth-gone.example", "/", password("carol", "secret")) // a new list is a reload
		},
	},
	"networks": {
		func(l *labels) {
			l.config("networks/office/a", "127.0.0.8/31, 2001:db8::/32")
			l.config("networks/broken/a", "127.0.0.1/99")
			l.service("allow", "http.host", "allow.example", "http.allow", "office")
			l.service("deny", "http.host", "deny.example", "http.deny", "office")
			l.service("allow-gone", "http.host", "allow-gone.example", "http.allow", "nowhere")
			l.service("deny-gone", "http.host", "deny-gone.example", "http.deny", "broken")
			l.service("deny-bad", "http.host", "deny-bad.example", "http.deny", "/")
		},
		func(l *labels) {
			status := func(want int, from, host string, headers ...string) {
				l.t.Helper()
				l.until(fmt.Sprint(want), func() (answer, error) {
					return l.raw(from, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n"+strings.Join(append(headers, "\r\n"), "\r\n"))
				}, func(a answer) bool { return a.status == want })
			}
			status(403, "127.0.0.1", "allow.example")
			status(403, "127.0.0.7", "allow.example")
			status(403, "127.0.0.10", "allow.example")
			status(200, "127.0.0.9", "allow.example")
			status(403, "127.0.0.1", "allow.example", "X-Forwarded-For: 127.0.0.8")
			status(200, "127.0.0.9", "allow.example", "X-Forwarded-For: 2001:db8:1::5")
			status(403, "127.0.0.9", "allow.example", "X-Forwarded-For: 2001:db9::5")
			status(200, "127.0.0.1", "deny.example")
			status(403, "127.0.0.8", "deny.example")
			for _, host := range []string{"allow-gone.example", "deny-gone.example", "deny-bad.example"} {
				status(503, "127.0.0.1", host)
			}
			l.unmet("deny-bad", "http.deny")
			l.withoutReload(func() {
				l.config("networks/office/a", "127.0.0.1")
				status(200, "127.0.0.1", "allow.example")
				status(403, "127.0.0.9", "allow.example")
				l.config("networks/nowhere/x", "127.0.0.0/8")
				status(200, "127.0.0.1", "allow-gone.example")
			})
		},
	},
	"rate": {
		func(l *labels) {
			l.service("rate", "http.host", "rate.example", "http.rate", "3/10s")
			l.service("rate-bad", "http.host", "rate-bad.example", "http.rate", "3/2s")
		},
		func(l *labels) {
			count := func(from string, n int) (served int) {
				for range n {
					a, err := l.raw(from, "GET / HTTP/1.1\r\nHost: rate.example\r\nConnection: close\r\n\r\n")
					switch {
					case err != nil:
						l.t.Error(err)
					case a.status == 200:
						served++
					case a.status != 429 || a.header.Get("Retry-After") != "10":
						l.t.Errorf("got %v", a)
					}
				}
				return served
			}
			if n := count("127.0.0.3", 8); n != 3 {
				l.t.Errorf("%d of 8 requests were served, want 3", n)
			}
			if n := count("127.0.0.4", 2); n != 2 {
				l.t.Errorf("another client: %d of 2 requests were served", n)
			}
			for range 10 {
				if a, err := l.get("rate-bad.example", "/"); err != nil || a.status != 200 {
					l.t.Errorf("a wrong value: %v, %v", a, err)
				}
			}
			l.unmet("rate-bad", "http.rate")
			l.withoutReload(func() {
				l.service("rate", "http.host", "rate.example", "http.rate", "1000000/10s")
				l.until("200", func() (answer, error) {
					return l.raw("127.0.0.3", "GET / HTTP/1.1\r\nHost: rate.example\r\nConnection: close\r\n\r\n")
				}, func(a answer) bool { return a.status == 200 })
			})
		},
	},
	"limits": {
		func(l *labels) {
			l.service("limits", "http.host", "limits.example", "http.timeout", "1s", "http.maxconn", "1")
			l.service("limits-bad", "http.host", "limits-bad.example", "http.timeout", "1d", "http.maxconn", "0")
		},
		func(l *labels) {
			l.wants(200, "limits", "limits.example", "/")
			l.wants(504, "", "limits.example", "/?wait=1500ms")
			began := time.Now()
			done := make(chan error, 2)
			for range 2 {
				go func() {
					a, err := l.get("limits.example", "/?wait=400ms")
					if err == nil && a.status != 200 {
						err = fmt.Errorf("got %v", a)
					}
					done <- err
				}()
			}
			for range 2 {
				if err := <-done; err != nil {
					l.t.Error(err)
				}
			}
			if took := time.Since(began); took < 800*time.Millisecond {
				l.t.Errorf("two requests of 400 ms took %v together: the server had both at once", took)
			}
			l.wants(200, "limits-bad", "limits-bad.example", "/?wait=1500ms")
			l.unmet("limits-bad", "http.timeout")
			l.unmet("limits-bad", "http.maxconn")
			l.withoutReload(func() {
				l.service("limits", "http.host", "limits.example", "http.timeout", "9s", "http.maxconn", "2")
				l.wants(200, "limits", "limits.example", "/?wait=1500ms")
			})
		},
	},
	"cors": {
		func(l *labels) {
			l.service("cors", "http.host", "cors.example", "http.cors", "https://app.example.com,http://localhost:3000")
			l.service("cors-bad", "http.host", "cors-bad.example", "http.cors", "*")
		},
		func(l *labels) {
			origin, method := "Origin: https://app.example.com", "Access-Control-Request-Method: PUT"
			a, err := l.request("OPTIONS", "cors.example", "/", origin, method, "Access-Control-Request-Headers: x-a,x-b")
			if err != nil || a.status != 204 || a.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || a.header.Get("Access-Control-Allow-Headers") != "x-a,x-b" || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "PUT") {
				l.t.Errorf("what a browser asks before: %v, %v", a, err)
			}
			if a := l.wants(200, "cors", "cors.example", "/", origin); a.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" || a.header.Get("Vary") != "Origin" {
				l.t.Errorf("its request: %v", a)
			}
			if a, err := l.request("OPTIONS", "cors.example", "/", origin+".evil", method); err != nil || a.echo.Name != "cors" || a.header.Get("Access-Control-Allow-Origin") != "" {
				l.t.Errorf("another origin: %v, %v", a, err)
			}
			if a := l.wants(200, "cors-bad", "cors-bad.example", "/", origin); a.header.Get("Access-Control-Allow-Origin") != "" {
				l.t.Errorf("a wrong value: %v", a)
			}
			l.unmet("cors-bad", "http.cors")
			l.withoutReload(func() {
				l.service("cors", "http.host", "cors.example", "http.cors", "https://new.example.com")
				l.until("the new origin", func() (answer, error) { return l.get("cors.example", "/", "Origin: https://new.example.com") }, func(a answer) bool {
					return a.header.Get("Access-Control-Allow-Origin") != ""
				})
			})
			if a := l.wants(200, "cors", "cors.example", "/", origin); a.header.Get("Access-Control-Allow-Origin") != "" {
				l.t.Errorf("the origin before: %v", a)
			}
		},
	},
	"sticky": {
		func(l *labels) {
			for _, name := range []string{"one", "two", "three"} {
				l.instance("sticky/"+name, l.server("sticky-"+name), "http.host", "sticky.example", "http.sticky", "cookie")
			}
			l.service("sticky-bad", "http.host", "sticky-bad.example", "http.sticky", "true")
		},
		func(l *labels) {
			first := l.wants(200, "", "sticky.example", "/")
			cookie, _, _ := strings.Cut(first.header.Get("Set-Cookie"), ";")
			if !strings.HasPrefix(cookie, "NUNCIO=") || !strings.Contains(first.header.Get("Set-Cookie"), "HttpOnly") {
				l.t.Fatalf("cookie %q", first.header.Get("Set-Cookie"))
			}
			stays := func(cookie, name string) {
				l.t.Helper()
				for range 6 {
					if a, err := l.get("sticky.example", "/", "Cookie: "+cookie); err != nil || a.echo.Name != name {
						l.t.Errorf("with the cookie of %s: %v, %v", name, a, err)
					}
				}
			}
			stays(cookie, first.echo.Name)
			if a := l.wants(200, "sticky-bad", "sticky-bad.example", "/"); a.header.Get("Set-Cookie") != "" {
				l.t.Errorf("a wrong value: %v", a)
			}
			l.unmet("sticky-bad", "http.sticky")
			// A new instance has its own cookie, by a command (a reload with 2.6), and those of the others stay right.
			l.instance("sticky/zero", l.server("sticky-zero"), "http.host", "sticky.example", "http.sticky", "cookie")
			var fourth answer
			l.until("sticky-zero", func() (answer, error) { return l.get("sticky.example", "/") }, func(a answer) bool {
				fourth = a
				return a.echo.Name == "sticky-zero"
			})
			cookieOfFourth, _, _ := strings.Cut(fourth.header.Get("Set-Cookie"), ";")
			stays(cookie, first.echo.Name)
			stays(cookieOfFourth, "sticky-zero")
			l.service("sticky-new", "http.host", "sticky-new.example", "balance", "leastconn") // a reload
			l.wants(200, "sticky-new", "sticky-new.example", "/")
			stays(cookie, first.echo.Name)
			stays(cookieOfFourth, "sticky-zero")
			l.del("sticky/zero")
			l.until("another server", func() (answer, error) { return l.get("sticky.example", "/", "Cookie: "+cookieOfFourth) }, func(a answer) bool {
				return a.status == http.StatusOK && a.echo.Name != "sticky-zero"
			})
		},
	},
}
