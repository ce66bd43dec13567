package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// proxied is a listener whose connections begin with a header of the PROXY protocol, version 2.
type proxied struct{ net.Listener }

type proxiedConn struct {
	net.Conn
	reader *bufio.Reader
	client string
}

func (c *proxiedConn) Read(p []byte) (int, error) { return c.reader.Read(p) }
func (c *proxiedConn) RemoteAddr() net.Addr       { return &net.UnixAddr{Name: c.client} }

func (l proxied) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &proxiedConn{Conn: conn, reader: bufio.NewReader(conn), client: "none"}
	head := make([]byte, 16)
	if _, err := io.ReadFull(c.reader, head); err != nil || string(head[:12]) != "\r\n\r\n\x00\r\nQUIT\n" {
		conn.Close()
		return l.Accept()
	}
	body := make([]byte, binary.BigEndian.Uint16(head[14:]))
	if _, err := io.ReadFull(c.reader, body); err == nil && len(body) >= 4 {
		c.client = net.IP(body[:4]).String()
	}
	return c, nil
}

// special starts a web server that is not spoken to as others are.
func (l *labels) special(name string, start func(s *httptest.Server)) (addr string) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := echo{Name: name, URI: r.RequestURI, Host: r.Host, Header: http.Header{"Proto": {r.Proto}, "Remote": {r.RemoteAddr}}}
		if r.TLS != nil {
			e.Header.Set("Sni", r.TLS.ServerName)
		}
		_ = json.NewEncoder(w).Encode(e) // after an error nobody reads it
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // who does not trust its certificate hangs up
	start(s)
	l.env.t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// counting starts a web server that counts the requests for /health.
func (l *labels) counting(name string) (addr string, asked *atomic.Int64) {
	asked = &atomic.Int64{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/health" {
			asked.Add(1)
			return
		}
		_ = json.NewEncoder(w).Encode(echo{Name: name}) // after an error nobody reads it
	}))
	l.env.t.Cleanup(s.Close)
	return s.Listener.Addr().String(), asked
}

// canaries counts which of n new clients get which service.
func (l *labels) canaries(host string, n int) (by map[string]int, cookies []string) {
	l.t.Helper()
	by = map[string]int{}
	for range n {
		a, err := l.get(host, "/")
		if err != nil || a.status != 200 {
			l.t.Fatalf("%v, %v", a, err)
		}
		by[a.echo.Name]++
		cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
		cookies = append(cookies, cookie+" "+a.echo.Name)
	}
	return by, cookies
}

var moreLabelTests = map[string]labelTest{
	"canary": {
		func(l *labels) {
			l.service("canary", "http.host", "canary.example")
			l.service("canary-next", "canary.of", "canary", "canary.percent", "30", "canary.header", "X-Try:next")
			l.service("canary-third", "canary.of", "canary", "canary.percent", "30")
			l.service("canary-bad", "canary.of", "nobody", "canary.percent", "101", "canary.header", "x")
		},
		func(l *labels) {
			l.until("the canary", func() (answer, error) { return l.get("canary.example", "/", "X-Try: next") }, func(a answer) bool { return a.echo.Name == "canary-next" })
			if a := l.wants(200, "canary", "canary.example", "/", "Cookie: nuncio_share=99", "X-Try: other"); a.header.Get("Set-Cookie") != "" {
				l.t.Errorf("a client that has its cookie: %v", a)
			}
			by, cookies := l.canaries("canary.example", 200)
			if n := by["canary-next"]; n < 25 || n > 100 || by["canary"] != 200-n {
				l.t.Errorf("of 200 new clients: %v, want 30 %% at the canary", by)
			}
			for _, text := range cookies[:20] {
				cookie, name, _ := strings.Cut(text, " ")
				if a, err := l.get("canary.example", "/", "Cookie: "+cookie); err != nil || a.echo.Name != name {
					l.t.Errorf("a client that was at %s with %s: %v, %v", name, cookie, a, err)
				}
			}
			l.wants(200, "canary", "canary.example", "/", "Cookie: nuncio_share=30")
			l.wants(200, "canary-next", "canary.example", "/", "Cookie: nuncio_share=29")
			for _, key := range []string{"canary.of", "canary.percent", "canary.header"} {
				l.unmet("canary-bad", key)
			}
			l.unmet("canary-third", "canary.of")
			l.withoutReload(func() {
				l.service("canary-next", "canary.of", "canary", "canary.percent", "100", "canary.header", "X-Try:next")
				l.wants(200, "canary-next", "canary.example", "/", "Cookie: nuncio_share=99")
				l.service("canary-next", "canary.of", "canary", "canary.percent", "0", "canary.header", "X-Try:next")
				l.wants(200, "canary", "canary.example", "/", "Cookie: nuncio_share=0")
			})
			// The service's guards hold for its canary.
			l.service("canary", "http.host", "canary.example", "http.allow", "no-such-list")
			l.wants(503, "", "canary.example", "/", "X-Try: next")
			l.service("canary", "http.host", "canary.example")
			l.del("canary-next/1")
			l.until("the next canary, by name", func() (answer, error) { return l.get("canary.example", "/", "Cookie: nuncio_share=0") }, func(a answer) bool { return a.echo.Name == "canary-third" })
		},
	},
	"backend": {
		func(l *labels) {
			tls := l.special("backend-tls", func(s *httptest.Server) { s.StartTLS() })
			l.instance("backend-tls/1", tls, "http.host", "tls.backend.example", "backend.proto", "https", "backend.verify", "none", "check.path", "/")
			l.instance("backend-verified/1", tls, "http.host", "verified.backend.example", "backend.proto", "https", "backend.verify", "no")
			l.instance("backend-h2c/1", l.special("backend-h2c", func(s *httptest.Server) {
				s.Config.Protocols = new(http.Protocols)
				s.Config.Protocols.SetUnencryptedHTTP2(true)
				s.Start()
			}), "http.host", "h2c.backend.example", "backend.proto", "h2c", "check.path", "/")
			l.instance("backend-proxy/1", l.special("backend-proxy", func(s *httptest.Server) {
				s.Listener = proxied{s.Listener}
				s.Start()
			}), "http.host", "proxy.backend.example", "backend.proxy-protocol", "v2", "check.path", "/")
			l.service("backend-bad", "http.host", "bad.backend.example", "backend.proto", "ftp", "backend.proxy-protocol", "v3")
		},
		func(l *labels) {
			if a := l.wants(200, "backend-tls", "tls.backend.example:80", "/"); a.echo.Header.Get("Sni") != "tls.backend.example" || a.echo.Host != "tls.backend.example:80" {
				l.t.Errorf("by TLS the service got %v", a.echo)
			}
			l.wants(503, "", "verified.backend.example", "/") // nobody has signed its certificate
			l.unmet("backend-verified", "backend.verify")
			if a := l.wants(200, "backend-h2c", "h2c.backend.example", "/"); a.echo.Header.Get("Proto") != "HTTP/2.0" {
				l.t.Errorf("by h2c the service got %v", a.echo)
			}
			if a := l.wants(200, "backend-proxy", "proxy.backend.example", "/"); a.echo.Header.Get("Remote") != "127.0.0.1" {
				l.t.Errorf("by the PROXY protocol the service got %v", a.echo)
			}
			l.wants(200, "backend-bad", "bad.backend.example", "/")
			l.unmet("backend-bad", "backend.proto")
			l.unmet("backend-bad", "backend.proxy-protocol")
			time.Sleep(2500 * time.Millisecond) // a check that fails would have taken them out by now
			for _, name := range []string{"tls", "h2c", "proxy"} {
				l.wants(200, "backend-"+name, name+".backend.example", "/")
			}
		},
	},
	"check": {
		func(l *labels) {},
		func(l *labels) {
			off, offAsked := l.counting("check-off")
			often, oftenAsked := l.counting("check-often")
			bad, badAsked := l.counting("check-bad")
			l.instance("check-off/1", off, "http.host", "off.check.example", "check", "off", "check.path", "/health")
			l.instance("check-often/1", often, "http.host", "often.check.example", "check.interval", "100ms", "check.path", "/health")
			l.instance("check-bad/1", bad, "http.host", "bad.check.example", "check.interval", "1ms", "check", "no", "check.path", "/health")
			l.instance("check-status/1", l.server("check-status"), "http.host", "status.check.example", "check.interval", "100ms", "check.path", "/", "check.status", "204")
			for _, name := range []string{"off", "often", "bad"} {
				l.wants(200, "check-"+name, name+".check.example", "/")
			}
			before := oftenAsked.Load()
			l.wants(503, "", "status.check.example", "/") // it answers with 200
			l.until("checks every 100 ms", func() (answer, error) { return answer{}, nil }, func(answer) bool { return oftenAsked.Load() > before+5 })
			if n := offAsked.Load(); n != 0 {
				l.t.Errorf("%d health checks of a service with check=off", n)
			}
			if n := badAsked.Load(); n > oftenAsked.Load() {
				l.t.Errorf("%d health checks with an interval that is none", n)
			}
			l.unmet("check-bad", "check")
			l.unmet("check-bad", "check.interval")
			l.withoutReload(func() {
				l.instance("check-bad/1", bad, "http.host", "bad.check.example", "check.path", "/new", "check", "no")
				seen := badAsked.Load()
				time.Sleep(50 * time.Millisecond)
				if n := badAsked.Load() - seen; n > 2 {
					l.t.Errorf("%d checks", n)
				}
			})
		},
	},
	"zone": {
		func(l *labels) {
			l.instance("zone/a", l.server("zone-a"), "http.host", "zone.example", "zone", "a")
			l.instance("zone/b", l.server("zone-b"), "http.host", "zone.example", "zone", "b")
			l.instance("zone/c", l.server("zone-c"), "http.host", "zone.example", "zone", "c")
		},
		func(l *labels) {
			for range 6 {
				l.wants(200, "zone-a", "zone.example", "/")
			}
			l.withoutReload(func() {
				l.instance("zone/d", l.server("zone-d"), "http.host", "zone.example", "zone", "d") // one more backup
				l.del("zone/a")
				seen := map[string]bool{}
				l.until("the other zones, all of them", func() (answer, error) { return l.get("zone.example", "/") }, func(a answer) bool {
					seen[a.echo.Name] = true
					return fmt.Sprint(seen["zone-b"], seen["zone-c"], seen["zone-d"]) == "true true true"
				})
			})
		},
	},
}

// dnsServer answers every question for an IPv4 address with 127.0.0.1, once it may.
func dnsServer(t *testing.T, silent *atomic.Bool) (addr string) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			if silent.Load() || n < 17 {
				continue
			}
			end := 12
			for end < n && buffer[end] != 0 {
				end += int(buffer[end]) + 1
			}
			end += 5 // the root label, type and class
			if end > n {
				continue
			}
			reply := append([]byte{}, buffer[:end]...)
			copy(reply[2:], []byte{0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0})
			if reply[end-3] == 1 { // an A record is asked for
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1)
			}
			_, _ = conn.WriteTo(reply, from) // it asks again
		}
	}()
	return conn.LocalAddr().String()
}

// Neither a start nor a reload waits for DNS: with fifteen names and servers that do not answer, both take as long as ever. An
// instance gets requests once its name has an address.
func TestNamesWaitForNothing(t *testing.T) {
	t.Parallel()
	oldestAndNewest(t, func(t *testing.T, h testkit.HAProxy) {
		var silent atomic.Bool
		silent.Store(true)
		l := newLabels(t, h, "dns="+dnsServer(t, &silent))
		_, port, err := net.SplitHostPort(l.server("named"))
		if err != nil {
			t.Fatal(err)
		}
		l.service("web", "http.host", "web.example")
		for i := range 15 {
			l.instance(fmt.Sprintf("named-%d/1", i), fmt.Sprintf("instance-%d.example.org:%s", i, port), "http.host", fmt.Sprintf("named-%d.example", i))
		}
		quick := func(what string, wait func()) {
			t.Helper()
			began := time.Now()
			wait()
			if took := time.Since(began); took > 8*time.Second { // one name alone takes the C library longer on most machines
				t.Errorf("%s took %v", what, took)
			}
		}
		quick("the start", func() { l.start(); l.serves("web.example", "web") })
		l.wants(503, "", "named-3.example", "/")
		before := l.reloads()
		quick("a reload", func() {
			l.service("new", "http.host", "new.example", "balance", "first")
			l.serves("new.example", "new")
			l.inStep()
		})
		if l.reloads() == before {
			t.Error("a new profile was no reload: this test measures nothing")
		}
		silent.Store(false)
		l.serves("named-3.example", "named")
		for i := range 15 {
			l.serves(fmt.Sprintf("named-%d.example", i), "named")
		}
		silent.Store(true)
		l.service("newer", "http.host", "newer.example", "balance", "leastconn") // a reload
		l.serves("newer.example", "newer")
		for i := range 15 { // the addresses are still known, though DNS is silent again
			host := fmt.Sprintf("named-%d.example", i)
			if a, err := l.get(host, "/"); err != nil || a.status != 200 {
				t.Errorf("%s after a reload: %v, %v", host, a, err)
			}
		}
	})
}
