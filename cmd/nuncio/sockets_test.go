package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// TestRecordsCannotReachSockets tries to reach HAProxy's and nuncio's own sockets and the admin listener through HAProxy,
// over HTTP and over TCP, with every notation of an address that HAProxy knows.
func TestRecordsCannotReachSockets(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		e := newEnv(t, h, "--shrink-hold=0")
		stats := testkit.FreeAddr(t)
		e.shipped("metrics.bind=" + stats + ";tcp.address=" + testkit.Host())
		e.put("web/a", e.webs[0].Addr)
		e.start()
		testkit.Eventually(t, 60*time.Second, func() error { _, err := e.get(); return err })

		tcp, n := testkit.FreeAddr(t), 0
		for _, name := range []string{"runtime.sock", "master.sock", "nuncio.sock"} {
			path := filepath.Join(e.state, "run", name)
			if _, err := os.Stat(path); err != nil {
				t.Fatalf("there is nothing to be reached: %v", err)
			}
			for _, address := range []string{path, "unix@" + path, "unix@/" + path, "uxst@" + path, "abns@" + path, "/proc/self/root" + path, "fd@3", "sockpair@3", "unix@$PWD", "${PATH}"} {
				n++
				e.put(fmt.Sprintf("peek/bare%d", n), address)
				e.put(fmt.Sprintf("peek/port%d", n), address+":1")
				e.put(fmt.Sprintf("peek/json%d", n), fmt.Sprintf(`{"host":%q,"port":1,"meta":{"http.host":"peek.example.com"}}`, address))
				e.put(fmt.Sprintf("peektcp/json%d", n), fmt.Sprintf(`{"host":%q,"port":1,"meta":{"tcp.port":%q}}`, address, port(tcp)))
			}
		}
		for i, host := range []string{host(e.admin), "0.0.0.0", "localhost", "LOCALHOST", "x.localhost", "::ffff:" + host(e.admin)} {
			e.put(fmt.Sprintf("peek/admin%d", i), fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":"peek.example.com"}}`, host, port(e.admin)))
			e.put(fmt.Sprintf("peektcp/admin%d", i), fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"tcp.port":%q}}`, host, port(e.admin), port(tcp)))
		}
		// The last change: once it is served, all earlier ones would be served too.
		e.put("web/a", e.webs[1].Addr)
		testkit.Eventually(t, 60*time.Second, func() error {
			got, err := e.get()
			if err == nil && got != "web1" {
				err = fmt.Errorf("%q answers, want web1", got)
			}
			return err
		})
		if conn, err := net.DialTimeout("tcp", tcp, 5*time.Second); err == nil {
			conn.Close()
			t.Errorf("something listens on the port of a service that has no valid record")
		}
		for _, command := range []string{"GET /readyz HTTP/1.0\r\nHost: peek.example.com\r\n\r\n", "GET /v1/status HTTP/1.1\r\nHost: peek.example.com\r\nConnection: close\r\n\r\n", "show info\n", "@1 show proc\n"} {
			answer := tell(t, e.http, command)
			for _, betrayal := range []string{"running", "Uptime", "Version: ", "<PID>", `"nuncio"`, "<type>"} {
				if strings.Contains(answer, betrayal) {
					t.Errorf("%q is answered with %q", command, answer)
				}
			}
		}
		serversAreAddresses(t, e)
		statsCannotBeChanged(t, e, stats)
	})
}

// serversAreAddresses fails the test unless each server line that HAProxy has loaded has an IP address and a port.
func serversAreAddresses(t *testing.T, e *env) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e.state, "current", "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := haproxy.Lex(text, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	servers := 0
	for _, l := range lines {
		if l.Keyword() != "server" {
			continue
		}
		servers++
		if _, err := netip.ParseAddrPort(l.Words[2].Text); err != nil {
			t.Errorf("line %d: the server's address %q: %v", l.Number, l.Words[2].Text, err)
		}
	}
	if servers == 0 {
		t.Error("no server line was found")
	}
}

// statsCannotBeChanged uses a record that leads to HAProxy's statistics page, which is allowed: clients can then read the
// page, but they must not be able to change anything through it.
func statsCannotBeChanged(t *testing.T, e *env, stats string) {
	t.Helper()
	e.put("stats/s", fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":"stats.example.com"}}`, host(stats), port(stats)))
	testkit.Eventually(t, 60*time.Second, func() error {
		if answer := tell(t, e.http, "GET /stats HTTP/1.0\r\nHost: stats.example.com\r\n\r\n"); !strings.Contains(answer, "200 OK") {
			return fmt.Errorf("the statistics answer %.80q", answer)
		}
		return nil
	})
	form := "s=a&action=maint&b=web"
	answer := tell(t, e.http, fmt.Sprintf("POST /stats HTTP/1.0\r\nHost: stats.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", len(form), form))
	if got, err := e.get(); err != nil || got != "web1" {
		t.Errorf("after an order by the page of statistics, answered with %.200q: %q, %v", answer, got, err)
	}
}

func tell(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a TCP connection has deadlines
	_, _ = io.WriteString(conn, text)                      // what is answered counts
	answer, _ := io.ReadAll(io.LimitReader(conn, 1<<20))   // as far as it came
	return string(answer)
}
