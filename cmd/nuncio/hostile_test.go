package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// TestHostileStore writes hostile values below /services/. None may add a directive, reach nuncio's own sockets or
// listener, stop the updates of other services, or exhaust memory.
func TestHostileStore(t *testing.T) {
	t.Parallel()
	e := newEnv(t, testkit.OneHAProxy(t), "--max-records=2000", "--shrink-hold=0")
	stats := testkit.FreeAddr(t)
	e.shipped("metrics.bind=" + stats + ";tcp.address=127.0.0.1")
	e.put("web/a", e.webs[0].Addr)
	e.put("other/o", `{"host":"127.0.0.1","port":9,"meta":{"tcp.port":"`+port(testkit.FreeAddr(t))+`"}}`)
	e.start()
	follows := 0
	stillFollows := func(after string) {
		t.Helper()
		follows++
		e.put("web/a", e.webs[follows%2].Addr)
		testkit.Eventually(t, 60*time.Second, func() error {
			got, err := e.get()
			if want := fmt.Sprintf("web%d", follows%2); err == nil && got != want {
				err = fmt.Errorf("after %s: web is answered by %q, want %q", after, got, want)
			}
			return err
		})
	}
	stillFollows("nothing")
	words := keywords(t, e)

	for _, value := range attacks(e.state, e.admin) {
		e.put("evil/x", value)
		e.put("evil2/x", fmt.Sprintf(`{"host":"127.0.0.1","port":9,"meta":{"http.host":%[1]q,"http.path":%[1]q,"balance":%[1]q,"check.path":%[1]q,"tcp.port":%[1]q},"tags":[%[1]q]}`, value))
	}
	stillFollows("values with directives")
	for _, name := range []string{"global", "defaults", "nuncio-http", "nuncio-metrics", "tcp-other", "runtime", "MASTER", "a:b", "-f", "..x", "or", "if", "unless", strings.Repeat("n", 255)} {
		e.put(name+"/x", `{"host":"127.0.0.1","port":9,"meta":{"http.host":"`+name+`.example.com"}}`)
		e.put("evil/"+name, "127.0.0.1:9")
	}
	for _, key := range []string{"", "/", "/x", "web", "web/", "web/a/b", "../x", "web/..", "web/\x00", "web/\n", "\xff\xfe/x", "web/a b", strings.Repeat("k/", 3000)} {
		e.put(key, "127.0.0.1:9")
	}
	stillFollows("names and keys")
	for _, p := range []string{port(e.admin), port(e.http), port(stats), "0", "65536", "-1", "1e3", "08"} {
		e.put("ports/p"+p, `{"host":"127.0.0.1","port":9,"meta":{"tcp.port":"`+p+`"}}`)
		stillFollows("tcp.port " + p)
		e.del("ports/p" + p)
	}
	if got := keywords(t, e); !slices.Equal(got, words) {
		t.Errorf("the configuration has the words %q, and without the attacks %q", got, words)
	}

	// Through HAProxy to nuncio's admin listener.
	for _, host := range []string{
		"127.0.0.1", "localhost", "LocalHost", "a.LOCALHOST", "localhost.localdomain", "ip6-localhost", "0.0.0.0", "::ffff:" + host(e.admin), host(e.admin),
	} {
		// With a host name that the admin listener accepts: it refuses all others by itself.
		e.put("peek/x", fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":"127.0.0.1"}}`, host, port(e.admin)))
		stillFollows("a record that leads to the admin listener")
		if code, body := ask(t, e.http, "127.0.0.1", "/readyz"); strings.Contains(body, "running") {
			t.Errorf("host %s shows the admin listener to HAProxy's clients: %d %s", host, code, body)
		}
	}

	// Floods.
	before, err := e.usage()
	if err != nil {
		t.Fatal(err)
	}
	huge := strings.Repeat("x", 1<<20)
	for i := range 40 {
		e.put(fmt.Sprintf("aflood/h%d", i), huge)
		e.put(fmt.Sprintf("aflood/%s%d", huge[:1<<18], i), "127.0.0.1:9")
		e.put(fmt.Sprintf("aflood/d%d", i), `{"host":"127.0.0.1","port":9,"x":`+strings.Repeat("[", 30000)+strings.Repeat("]", 30000)+"}")
	}
	stillFollows("huge records")
	for i := range 4000 {
		e.put(fmt.Sprintf("aflood%d/i%d", i%50, i), "127.0.0.1:9")
	}
	stillFollows("a flood of records")
	// On a busy machine the flood waits in memory, and the collector's next goal is twice that. Then Go collects again after two
	// minutes at the latest; what nuncio keeps for good stays. The kernel gets the rest back when the machine has time for it.
	testkit.Eventually(t, 4*time.Minute, func() error {
		stillFollows("the floods")
		after, err := e.usage()
		if err == nil && after.heap > before.heap+250 {
			err = fmt.Errorf("nuncio's heap grew from %d to %d MiB, its memory from %d to %d", before.heap, after.heap, before.rss, after.rss)
		}
		return err
	})
	// A start lists all of it at once.
	e.stop()
	e.start()
	stillFollows("a start")
	if text, err := os.ReadFile(e.log.Name()); err != nil || strings.Contains(string(text), "panic") || len(text) > 20<<20 {
		t.Errorf("the log has %d bytes, %v, or a panic", len(text), err)
	}
}

func attacks(state, admin string) []string {
	return []string{
		"127.0.0.1:9\n  http-response set-header x-pwn 1\n  server evil 127.0.0.1:81", "127.0.0.1:9 backup weight 256 send-proxy", "127.0.0.1:9 #", "127.0.0.1:9\\", `127.0.0.1:9 "`,
		"unix@" + state + "/run/master.sock", "unix@" + state + "/run/runtime.sock:1", "/" + state + "/run/nuncio.sock", "abns@x:1", "fd@3:1", "sockpair@3:1", "$HOME:1", "${PATH}:1", `"${PATH}"`,
		"%[env(PATH)]", "a),upper(", ".if 0", "}", "-f /etc/passwd", "\x00", "\u2028", "{{ env \"PATH\" }}", `{"host":"unix@` + state + `/run/master.sock","port":1}`,
		`{"host":"` + host(admin) + `","port":` + port(admin) + `}`, `{"host":"127.0.0.1","port":9,"weight":-1}`, `{"host":"127.0.0.1","port":"9\n"}`, `{"host":"127.0.0.1","host":"127.0.0.2","port":9}`, "{", "[]", "null", "",
	}
}

// keywords returns the distinct words that begin a line or name a section, without names of services.
func keywords(t *testing.T, e *env) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(e.state, "current", "haproxy.cfg"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := haproxy.Lex(text, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, s := range haproxy.Sections(lines) {
		for _, l := range s.Lines {
			word := s.Kind + ": " + l.Keyword()
			if l.Keyword() == "server" {
				for _, argument := range l.Words[3:] {
					if text := argument.Text; strings.Trim(text, "0123456789") != "" {
						word += " " + text
					}
				}
			}
			words = append(words, word)
		}
	}
	slices.Sort(words)
	return slices.Compact(words)
}

func ask(t *testing.T, addr, host, path string) (int, string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a TCP connection has deadlines
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\nHost: %s\r\n\r\n", path, host)
	buf := make([]byte, 4096)
	n, _ := conn.Read(buf) // what has come is looked at
	return 0, string(buf[:n])
}

func port(addr string) string { _, p, _ := net.SplitHostPort(addr); return p }
func host(addr string) string { h, _, _ := net.SplitHostPort(addr); return h }
