package haproxy_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// rejected asks HAProxy which of the fragments, one per line in a list of ACL patterns, it cannot read.
func rejected(t *testing.T, h testkit.HAProxy, fragments []string) map[string]bool {
	t.Helper()
	text := header(testkit.FreeAddr(t))
	first := strings.Count(text, "\n") + 1
	for _, f := range fragments {
		text += " acl x hdr(host) -m str y" + f + " z\n"
	}
	bad := make(map[string]bool)
	for n := range badLines(t, h, text) {
		bad[fragments[n-first]] = true
	}
	return bad
}

func badLines(t *testing.T, h testkit.HAProxy, text string) map[int]bool {
	t.Helper()
	dir := t.TempDir()
	write(t, dir, text)
	out, _ := h.Check(t, dir)
	bad := make(map[int]bool)
	for _, m := range regexp.MustCompile(`parsing \[haproxy\.cfg:(\d+)\]`).FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		bad[n] = true
	}
	return bad
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func header(addr string) string {
	return "defaults\n mode http\n timeout client 9s\n timeout server 9s\n timeout connect 9s\nfrontend f\n bind " + addr + "\n"
}

// readBack serves each word, as written, as a response body, and returns what HAProxy understood.
func readBack(t *testing.T, h testkit.HAProxy, words []string, kind string) []string {
	t.Helper()
	dir, addr := t.TempDir(), testkit.FreeAddr(t)
	var cfg strings.Builder
	cfg.WriteString(header(addr))
	for i, w := range words {
		fmt.Fprintf(&cfg, " http-request return status 200 content-type text/plain %s %s if { path /%d }\n", kind, w, i)
	}
	write(t, dir, cfg.String())
	if out, ok := h.Check(t, dir); !ok {
		t.Fatalf("haproxy -c: %s", out)
	}
	h.Start(t, dir, addr, "HOME=/root", "LIST=a b  c", "EMPTY=")
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	got := make([]string, len(words))
	for i := range words {
		resp, err := client.Get(fmt.Sprintf("http://%s/%d", addr, i))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got[i] = string(body)
	}
	return got
}

// fragments makes n strings of the bytes that mean something to HAProxy, the same ones in every run.
func fragments(n int, alphabet []string) []string {
	rnd := rand.New(rand.NewPCG(1, 2))
	out := make([]string, n)
	for i := range out {
		var b strings.Builder
		for range 1 + rnd.IntN(7) {
			b.WriteString(alphabet[rnd.IntN(len(alphabet))])
		}
		out[i] = b.String()
	}
	return out
}

// Lex must agree with the program on what is an error and on what each word says, for text nobody escaped.
func TestLexAgreesWithHAProxy(t *testing.T) {
	alphabet := []string{
		"a", "b", "\\", "\\", `"`, `"`, "'", "'", "$", "HOME", "${HOME}", "${", "}", "${NO-x}", "-", "#",
		"n", "r", "t", "x41", "x", "4", " ", "\t", "\r", "\v", "{", "${LIST[*]}", "[*]", ".", "${.LINE}", "\xa0", "\xc3\xa9", "%", "~", "!",
	}
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		var good, bad, single, want []string
		for _, f := range fragments(3000, alphabet) {
			lines, err := haproxy.Lex([]byte("x y"+f+" if\n"), env)
			if err != nil {
				bad = append(bad, f)
				continue
			}
			good = append(good, f)
			// A variable for the line's number says another one in readBack's file.
			if w := lines[0].Words; len(w) == 3 && w[2].Text == "if" && !strings.Contains(f, "\r") && !strings.Contains(f, ".LINE") {
				single, want = append(single, "y"+f), append(want, w[1].Text)
			}
		}
		if len(single) < 300 || len(bad) < 300 {
			t.Fatalf("only %d words and %d errors: the sample proves too little", len(single), len(bad))
		}
		for f := range rejected(t, h, good) {
			t.Errorf("HAProxy refuses y%q, Lex takes it", f)
		}
		// HAProxy gives up after some fifty errors.
		for some := range slices.Chunk(bad, 20) {
			refused := rejected(t, h, some)
			for _, f := range some {
				if !refused[f] {
					t.Errorf("HAProxy takes y%q, Lex refuses it", f)
				}
			}
		}
		for i, got := range readBack(t, h, single, "string") {
			if got != want[i] {
				t.Errorf("%q: HAProxy reads %q, Lex %q", single[i], got, want[i])
			}
		}
	})
}

// nasty are values that tried to be more than data, and every byte there is.
func nasty() []string {
	values := []string{
		"A:80\n  http-response set-header x-pwn 1\n  server evil B:80", "A:80 backup weight 256", "A:80 #", `A:80\`, `A:80 "`,
		`"${HOME}"`, "${HOME}", "$HOME", "%[env(HOME)]", "50%", "a),upper(", "'", "''", `\`, `\\`, "\r\n", " ", "\t", "#", "}", "{",
		"if", "--", "-f", "\x7f", "\xff", "\u00a0", "\ufeff", "${LIST[*]}", `\x41`, `\n`,
	}
	for c := 1; c < 256; c++ {
		values = append(values, string([]byte{byte(c)}), "a"+string([]byte{byte(c)})+"b")
	}
	return append(values, fragments(600, []string{"\\", `"`, "'", "$", "{", "}", "HOME", "#", " ", "\n", "\r", "%", "[", "]", "x41", "n", "\t", "a", "\xff"})...)
}

// quote writes a value as one word, as render does outside quotes.
func quote(value string) string {
	if haproxy.IsBare(value) {
		return value
	}
	return `"` + haproxy.EscapeWeak(value) + `"`
}

func TestQuoteIsReadBackExactly(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		for kind, write := range map[string]func(string) string{"string": quote, "lf-string": func(v string) string { return quote(haproxy.DoublePercent(v)) }} {
			var words []string
			for _, v := range nasty() {
				words = append(words, write(v))
			}
			for i, got := range readBack(t, h, words, kind) {
				if want := nasty()[i]; got != want {
					t.Errorf("%s: %q written as %s is read as %q", kind, want, words[i], got)
				}
			}
		}
	})
}

func TestQuoteIsReadBackByLex(t *testing.T) {
	for _, v := range nasty() {
		w := quote(v)
		lines, err := haproxy.Lex([]byte("k "+w+" z\n"), env)
		if err != nil || len(lines) != 1 || len(lines[0].Words) != 3 || lines[0].Words[1].Text != v {
			t.Errorf("%q written as %s: %v, %v", v, w, lines, err)
		}
	}
}

func TestCheckAddress(t *testing.T) {
	for _, good := range []string{"10.0.0.1:80", "[::1]:80", "[2001:db8::1]:65535", "web-1.example.com:8080", "a_b:1", "web.:80"} {
		if err := haproxy.CheckAddress(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a", "10.0.0.1", ":80", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:080", "10.0.0.1:+80", "1.2.3.4.5:80",
		"unix@/run/x:1", "abns@x:1", "fd@3:1", "$HOME:80", "10.0.0.1:80 backup", "10.0.0.1:$P", "[fe80::1%eth0]:80", "::1:80", "a b:80", "-a:80",
		"ipv4@10.0.0.1:80", "/run/x.sock", "10.0.0.1:80-90", "10.0.0.1:80\n", "a..b:80", strings.Repeat("a", 64) + ":80",
	} {
		if err := haproxy.CheckAddress(bad); err == nil {
			t.Errorf("%q passed", bad)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{"web-1_a.b:C": true, "": false, "a b": false, "a\n": false, "é": false, "a/b": false, "$a": false} {
		if err := haproxy.CheckName(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// The claims of CheckName hold for the program too.
func TestNamesAgreeWithHAProxy(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		var names []string
		for c := 1; c < 256; c++ {
			names = append(names, "n"+strconv.Itoa(c)+string([]byte{byte(c)}))
		}
		for some := range slices.Chunk(names, 20) {
			text := header(testkit.FreeAddr(t))
			first := strings.Count(text, "\n") + 1
			for _, name := range some {
				text += "backend " + quote(name) + "\n"
			}
			bad := badLines(t, h, text)
			for i, name := range some {
				if refused := haproxy.CheckName(name) != nil; refused != bad[first+i] {
					t.Errorf("proxy name %q: CheckName refuses: %v, HAProxy refuses: %v", name, refused, bad[first+i])
				}
			}
		}
	})
}
