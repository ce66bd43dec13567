package main

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// echo is what the web servers of these tests tell about a request.
type echo struct {
	Name, URI, Host string
	Header          http.Header
}

// labels is a nuncio with the shipped templates. The cases share it: each has services and names of its own.
type labels struct {
	*env
	t       *testing.T
	servers map[string]string // addresses by name
}

func newLabels(t *testing.T, h testkit.HAProxy, settings string, more ...string) *labels {
	t.Helper()
	l := &labels{env: newEnv(t, h, more...), t: t, servers: map[string]string{}}
	l.shipped("metrics.bind=off;" + settings)
	return l
}

// server returns the address of a web server that answers with an echo.
func (l *labels) server(name string) string {
	if l.servers[name] == "" {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if own := r.URL.Query().Get("set"); own != "" { // a header that the service sets itself
				key, value, _ := strings.Cut(own, ":")
				w.Header().Set(key, value)
			}
			if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
				time.Sleep(wait)
			}
			_ = json.NewEncoder(w).Encode(echo{name, r.RequestURI, r.Host, r.Header}) // after an error nobody reads it
		}))
		l.env.t.Cleanup(s.Close)
		l.servers[name] = s.Listener.Addr().String()
	}
	return l.servers[name]
}

// service puts a record of one instance, whose server has the service's name. meta has pairs of key and value.
func (l *labels) service(name string, meta ...string) {
	l.t.Helper()
	l.instance(name+"/1", l.server(name), meta...)
}

func (l *labels) instance(key, addr string, meta ...string) {
	l.t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		l.t.Fatal(err)
	}
	m := map[string]string{}
	for i := 0; i < len(meta); i += 2 {
		m[meta[i]] = meta[i+1]
	}
	n, _ := strconv.Atoi(port) // SplitHostPort of a listener's address
	record, err := json.Marshal(map[string]any{"host": host, "port": n, "meta": m})
	if err != nil {
		l.t.Fatal(err)
	}
	l.put(key, string(record))
}

// answer is what a client got.
type answer struct {
	status int
	header http.Header
	echo   echo
	body   string
}

// String is for messages of tests.
func (a answer) String() string {
	return fmt.Sprintf("%d by %q, %v, %.200q", a.status, a.echo.Name, a.header, a.body)
}

// raw sends a request as it is, from a client of that address.
func (l *labels) raw(from, text string) (answer, error) {
	dialer := net.Dialer{Timeout: 10 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := dialer.Dial("tcp", l.http)
	if err != nil {
		return answer{}, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a TCP connection takes one
	if _, err := io.WriteString(conn, text); err != nil {
		return answer{}, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	a := answer{status: resp.StatusCode, header: resp.Header, body: string(body)}
	_ = json.Unmarshal(body, &a.echo) // an answer of HAProxy is no JSON
	return a, err
}

// get requests a path of a host. headers are lines.
func (l *labels) get(host, path string, headers ...string) (answer, error) {
	return l.request("GET", host, path, headers...)
}

func (l *labels) request(method, host, path string, headers ...string) (answer, error) {
	return l.raw("127.0.0.1", method+" "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n"+strings.Join(append(headers, "\r\n"), "\r\n"))
}

// until repeats a request until its answer is right: changes take a moment.
func (l *labels) until(want string, request func() (answer, error), right func(answer) bool) {
	l.t.Helper()
	testkit.Eventually(l.t, 20*time.Second, func() error {
		a, err := request()
		if err == nil && !right(a) {
			err = fmt.Errorf("got %s, want %s", a, want)
		}
		return err
	})
}

// serves waits until a host leads to a service.
func (l *labels) serves(host, service string) {
	l.t.Helper()
	l.until(service, func() (answer, error) { return l.get(host, "/") }, func(a answer) bool { return a.status == 200 && a.echo.Name == service })
}

// reloads is how often HAProxy was reloaded so far.
func (l *labels) reloads() int {
	l.t.Helper()
	text, err := testkit.Get("http://" + l.admin + "/metrics")
	if err != nil {
		l.t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^nuncio_applies_total\{result="reloaded"\} (\d+)$`).FindStringSubmatch(text)
	if match == nil {
		return 0
	}
	n, _ := strconv.Atoi(match[1])
	return n
}

// inStep waits until HAProxy has confirmed what etcd holds now. Traffic flows earlier than that.
func (l *labels) inStep() {
	l.t.Helper()
	newest, err := l.client.Get(l.t.Context(), "/")
	if err != nil {
		l.t.Fatal(err)
	}
	testkit.Eventually(l.t, 20*time.Second, func() error {
		text, err := testkit.Get("http://" + l.admin + "/v1/status")
		if err != nil {
			return err
		}
		var o struct{ Applied struct{ Revision int64 } }
		if err = json.Unmarshal([]byte(text), &o); err == nil && o.Applied.Revision < newest.Header.Revision {
			err = fmt.Errorf("applied revision %d, etcd has %d", o.Applied.Revision, newest.Header.Revision)
		}
		return err
	})
}

// withoutReload runs what must change HAProxy by commands alone.
func (l *labels) withoutReload(change func()) {
	l.t.Helper()
	l.inStep()
	before := l.reloads()
	change()
	l.inStep()
	if n := l.reloads() - before; n != 0 {
		l.t.Errorf("%d reloads, want none", n)
	}
}

// unmet waits until a wish of a service is reported as not met.
func (l *labels) unmet(service, key string) {
	l.t.Helper()
	testkit.Eventually(l.t, 20*time.Second, func() error {
		text, err := testkit.Get("http://" + l.admin + "/v1/status")
		if err != nil {
			return err
		}
		var o struct {
			Templates struct {
				Unmet []struct{ Service, Key, Reason string }
			}
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return err
		}
		for _, u := range o.Templates.Unmet {
			if u.Service == service && u.Key == key && u.Reason != "" {
				return nil
			}
		}
		return fmt.Errorf("%s of %s is not reported: %+v", key, service, o.Templates.Unmet)
	})
}

// oldestAndNewest runs a test with the two HAProxies that differ most.
func oldestAndNewest(t *testing.T, test func(t *testing.T, h testkit.HAProxy)) {
	all := testkit.HAProxies(t)
	for i, h := range all {
		if i == 0 || i == len(all)-1 {
			t.Run("haproxy-"+h.Version, func(t *testing.T) {
				t.Parallel()
				test(t, h)
			})
		}
	}
}

// Requests that can be read in two ways reach nothing that their route forbids, and nobody but a trusted proxy can say who
// the client is.
func TestRequestsCannotDeceive(t *testing.T) {
	t.Parallel()
	oldestAndNewest(t, func(t *testing.T, h testkit.HAProxy) {
		l := newLabels(t, h, "trusted.proxies=127.0.0.9,192.0.2.0/24")
		l.service("web", "http.host", "a.example")
		l.service("admin", "http.host", "a.example", "http.path", "/admin")
		l.service("wild", "http.host", "*.w.example")
		l.service("odd", "http.host", "o.example", "http.path", "/a//b,/%61,/x/..,/a;b")
		l.start()
		l.serves("a.example", "web")
		for _, c := range []struct {
			target, host string
			status       int
			service      string
		}{
			{"/x", "A.Example:80", 200, "web"},
			{"/x", "a.example.", 200, "web"},
			{"/administrator", "a.example", 200, "web"},
			{"/admin", "a.example", 200, "admin"},
			{"//admin/x", "a.example", 200, "admin"},
			{"/%61dmin/x", "a.example", 200, "admin"},
			{"/admin;x/y", "a.example", 200, "admin"},
			{"/%2fadmin%2fx", "a.example", 200, "admin"},
			{"/.well-known/x", "a.example", 200, "web"},
			{"/./admin/x", "a.example", 400, ""},
			{"/y/../admin/x", "a.example", 400, ""},
			{"/y/%2e%2E/admin", "a.example", 400, ""},
			{"/y/..;z/admin", "a.example", 400, ""},
			{"/y/..", "a.example", 400, ""},
			{"/y%00", "a.example", 400, ""},
			{`/y\..\admin`, "a.example", 400, ""},
			{"/y%5c..%5Cadmin", "a.example", 400, ""},
			{"http://a.example/admin/x?y", "a.example", 200, "admin"},
			{"/x", "b.w.example", 200, "wild"},
			{"/x", "*.w.example", 400, ""},
			{"/x", ".w.example", 400, ""},
			{"/x", "a.example/admin", 400, ""},
			{"/x", "a.example@b", 400, ""},
			{"/x", "a.example\r\nHost: b.w.example", 400, ""},
			{"/x", "", 400, ""},
		} {
			a, err := l.get(c.host, c.target)
			if err != nil || a.status != c.status || a.echo.Name != c.service {
				t.Errorf("%s of %q: %v, %v, want %d by %q", c.target, c.host, a, err, c.status, c.service)
			}
			if strings.Contains(a.echo.URI, "://") {
				t.Errorf("%s: the service got %s", c.target, a.echo.URI)
			}
		}
		if a, err := l.raw("127.0.0.1", "GET /x HTTP/1.1\r\nConnection: close\r\n\r\n"); err != nil || a.status != 400 {
			t.Errorf("HTTP/1.1 without Host: %v, %v, want 400", a, err)
		}
		l.unmet("odd", "http.path")

		lies := "GET /x HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.1, 203.0.113.2\r\nX_Forwarded_For: 203.0.113.3\r\n" +
			"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 203.0.113.4\r\nForwarded: for=203.0.113.5\r\nProxy: evil\r\n\r\n"
		a, err := l.raw("127.0.0.1", lies)
		if err != nil {
			t.Fatal(err)
		}
		a.echo.Header.Del("Connection")
		if got := fmt.Sprint(a.echo.Header); got != "map[X-Forwarded-For:[127.0.0.1] X-Forwarded-Proto:[http]]" {
			t.Errorf("a client's own headers: the service got %s", got)
		}
		if a, err = l.raw("127.0.0.9", lies); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(a.echo.Header["X-Forwarded-For"], a.echo.Header["X-Forwarded-Proto"], a.echo.Header["X-Forwarded-Host"], a.echo.Header["Proxy"]); got != "[203.0.113.1, 203.0.113.2 127.0.0.9] [https] [evil] []" {
			t.Errorf("a trusted proxy's headers: the service got %s", got)
		}
	})
}

// HAProxy takes TLS only as Mozilla's intermediate profile has it, and its workers are not root when nuncio is.
func TestWorkersAndTLSAreSafeByDefault(t *testing.T) {
	t.Parallel()
	oldestAndNewest(t, func(t *testing.T, h testkit.HAProxy) {
		pki := testkit.NewPKI(t)
		cert, key := pki.Issue("a.example")
		var both []byte
		for _, file := range []string{cert, key} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			both = append(both, text...)
		}
		pem := filepath.Join(t.TempDir(), "a.pem")
		if err := os.WriteFile(pem, both, 0o600); err != nil {
			t.Fatal(err)
		}
		https := testkit.FreeAddr(t)
		l := newLabels(t, h, "https.bind="+https+";https.crt="+pem+";https.strict-sni=on;https.redirect=off")
		l.service("web", "http.host", "a.example")
		l.start()
		l.serves("a.example", "web")
		for _, c := range []struct {
			name   string
			config *tls.Config
			want   bool
		}{
			{"TLS 1.3", &tls.Config{MinVersion: tls.VersionTLS13}, true},
			{"TLS 1.2 with forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12}, true},
			{"TLS 1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, false},
			{"CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, false},
			{"a name without a certificate", &tls.Config{ServerName: "b.example"}, false},
		} {
			c.config.InsecureSkipVerify = true
			c.config.ServerName = cmp.Or(c.config.ServerName, "a.example")
			conn, err := tls.Dial("tcp", https, c.config)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != c.want {
				t.Errorf("%s: %v, want accepted %v", c.name, err, c.want)
			}
		}
		if os.Geteuid() != 0 {
			return
		}
		account, err := user.Lookup("haproxy")
		if err != nil {
			t.Skip("no user haproxy on this machine")
		}
		l.service("api", "http.host", "b.example") // a reload, then a command: both work for workers that are not root
		l.serves("b.example", "api")
		l.withoutReload(func() {
			l.service("api", "http.host", "c.example")
			l.serves("c.example", "api")
		})
		text, err := testkit.Get("http://" + l.admin + "/v1/status")
		if err != nil {
			t.Fatal(err)
		}
		var o struct {
			HAProxy struct {
				Worker int `json:"worker_pid"`
			} `json:"haproxy"`
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.HAProxy.Worker))
		root, err2 := os.Readlink(fmt.Sprintf("/proc/%d/root", o.HAProxy.Worker))
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if want := "\nUid:\t" + account.Uid + "\t" + account.Uid; !strings.Contains(string(state), want) || root != "/var/lib/haproxy" {
			t.Errorf("the worker has root %s and\n%s\nwant user haproxy in /var/lib/haproxy", root, state)
		}
	})
}
