package render_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/render"
)

// benign is a value that fits everywhere that any value fits, but not where an address is wanted.
const benign = "benign"

type standing struct {
	line   string // %s is where the value is printed
	fits   string // a value that must be accepted; benign if empty
	format bool   // "%" must be doubled
	never  bool   // no value is accepted
	nth    int    // index of the word
}

// places are lines with a value in every kind of position.
var places = []standing{
	{line: "acl x hdr(host) -i %s", nth: 4},
	{line: "acl x hdr(host) -i a %s", nth: 5},
	{line: "acl x path_beg \"%s\"", nth: 3},
	{line: "acl x path_beg /p%s/", nth: 3},
	{line: "acl %s path_beg /p", nth: 1},
	{line: "acl x %s /p", never: true},
	{line: "acl x hdr(%s) /p", nth: 2},
	{line: "acl x hdr(host) -m %s a", never: true},
	{line: "http-request set-header X-A %s", nth: 3, format: true},
	{line: "http-request set-header X-A \"a %s b\" if TRUE", nth: 3, format: true},
	{line: "http-request set-header X-A 'a %s b' if TRUE", nth: 3, format: true},
	{line: "http-request add-header X-A a%sb", nth: 3, format: true},
	{line: "http-request set-header %s v", nth: 2},
	{line: "http-request set-header X-A %%[str(%s)]", nth: 3},
	{line: "http-request set-header X-A %%[%s]", never: true},
	{line: "http-request set-header X-A %%%s", never: true},
	{line: "http-request set-header X-A %%{+Q}%s", never: true},
	{line: "http-response replace-header X-A (.*) %s", nth: 4, format: true},
	{line: "http-response replace-header X-A %s x", nth: 3},
	{line: "http-request set-path %s", nth: 2, format: true},
	{line: "http-request set-var(txn.x) str(%s)", nth: 2},
	{line: "http-request set-var(txn.x) str(a),%s", never: true},
	{line: "http-request set-var-fmt(txn.x) %s", nth: 2, format: true},
	{line: "http-request return status 200 content-type text/plain string %s", nth: 7},
	{line: "http-request return status 200 content-type text/plain lf-string %s", nth: 7, format: true},
	{line: "http-request return status 200 %s", never: true},
	{line: "http-request deny %s", never: true},
	{line: "http-request %s", never: true},
	{line: "http-request %s-header X-A b", never: true},
	{line: "http-request deny if { path %s }", nth: 5},
	{line: "http-request deny if { path -i /a %s } TRUE", nth: 7},
	{line: "http-request deny if %s", nth: 3},
	{line: "http-request deny if { %s }", never: true},
	{line: "http-request redirect location %s", nth: 3, format: true},
	{line: "redirect location %s", nth: 2},
	{line: "use_backend %s if TRUE", nth: 1},
	{line: "default_backend %s", nth: 1},
	{line: "log-format %s", nth: 1, format: true},
	{line: "unique-id-format \"%s-%%ci\"", nth: 1, format: true},
	{line: "backend %s", nth: 1},
	{line: "defaults a from %s", nth: 3},
	{line: "server %s 192.0.2.1:80", nth: 1},
	{line: "server a %s", nth: 2, fits: "192.0.2.1:80"},
	{line: "server a \"%s\" check", nth: 2, fits: "[::1]:80"},
	{line: "server a %s:80", nth: 2, fits: "web.example.com"},
	{line: "server a 192.0.2.1:%s check", nth: 2, fits: "8080"},
	{line: "server a 192.0.2.1:80 %s", never: true},
	{line: "server a 192.0.2.1:80 inter 2s %s", never: true},
	{line: "server a 192.0.2.1:80 weight %s check", nth: 4, fits: "7"},
	{line: "server a 192.0.2.1:80 addr %s", nth: 4, fits: "192.0.2.2"},
	{line: "server a 192.0.2.1:80 ssl verify none sni str(%s)", nth: 7},
	{line: "bind %s", nth: 1, fits: ":80,[::]:81"},
	{line: "bind :80 %s", never: true},
	{line: "option %s", never: true},
	{line: "option httpchk GET %s", nth: 3},
	{line: "stats socket %s", never: true},
	{line: "balance hdr(%s)", nth: 1},
	{line: "mode %s", nth: 1},
	{line: "log %s local0", nth: 1},
	{line: "tcp-request content reject if { src %s }", nth: 6},
	{line: "tcp-check send-lf %s", nth: 2, format: true},
	{line: "http-check send meth GET uri %s", nth: 5},
	{line: "http-check send meth GET uri / hdr X-A %s", nth: 8, format: true},
	{line: "description %s", nth: 1},
	{line: "unheard-of a %s", nth: 2},
	{line: "no %s", never: true},
	{line: "%s a b", never: true},
	{line: "x%s a b", never: true},
	{line: ".if %s", nth: 1},
	{line: "a \"$X%s\"", never: true},
	{line: "a \"${X%s}\"", never: true},
	{line: "a b\\%s", never: true},
}

// attacks tried to be more than data, somewhere.
var attacks = []string{
	"A:80\n  http-response set-header x-pwn 1\n  server evil B:80", "192.0.2.1:80 backup weight 256 send-proxy", "192.0.2.1:80 #", `192.0.2.1:80\`, `192.0.2.1:80 "`,
	`"${SECRET}"`, "${SECRET}", "$SECRET", "$SECRET:80", `\x24SECRET:80`, "unix@/run/x.sock", "abns@x", "fd@3", "/run/x.sock", "%[env(SECRET)]", "50%", "%", "%%", "%T",
	"-f", "-i", "-m", "--", "-f /etc/passwd", "a),upper(", "a)", "(", ".if 0", ".notice \"${SECRET}\"", "", " ", "\t", "\n", "\r", "\r\n", "\x00", "a\x00b", "#", "#x", "'", "''", `"`, `\`, `\\`,
	"{", "}", "!", "or", "||", "if", "unless", "if TRUE", "TRUE", "eq", "lt", "backup", "\xfe", "\xfeAAAAA", "\xfdAAAAA", "\xff", "é", "a,b", "a:b", "\x7f", "\x1b[2J", "\ufeff", "\u00a0", "%{+Q}o", "\\n", "x\x20y",
}

func print2(s standing) string { return strings.ReplaceAll(s.line, "%s", `{{getv "/v"}}`) }

// clean turns the doubled percent of a place's notation into one.
func clean(line string) string { return strings.ReplaceAll(line, "%%", "%") }

func withValue(value string) *catalog.Snapshot {
	return &catalog.Snapshot{Extra: []catalog.Pair{{Key: "/v", Value: value}}}
}

// structureHolds is the promise: a value is refused, or what HAProxy reads differs from what it reads of a
// harmless value in nothing but that value.
func structureHolds(t *testing.T, tmpl *render.Templates, s standing, value string) (accepted bool) {
	t.Helper()
	result, err := tmpl.Render(withValue(value))
	if err != nil {
		var e *render.Error
		if !errors.As(err, &e) || e.Line != 2 {
			t.Errorf("%s: %q: error %v, want an *Error for line 2", s.line, value, err)
		}
		return false
	}
	got, err := haproxy.Lex(result.Files.Config(), nil)
	if err != nil {
		t.Errorf("%s: %q makes a file that HAProxy cannot read: %v", s.line, value, err)
		return false
	}
	if len(result.Dropped) > 0 {
		if len(got) != 2 || !strings.HasPrefix(s.line, "server ") {
			t.Errorf("%s: %q: dropped, but the file is %q", s.line, value, result.Files.Config())
		}
		return false
	}
	if len(got) != 3 || got[0].Keyword() != "global" || got[2].Keyword() != "last" {
		t.Errorf("%s: %q changes the lines:\n%s", s.line, value, result.Files.Config())
		return false
	}
	if s.format {
		value = haproxy.DoublePercent(value)
	}
	var words []string
	for _, w := range got[1].Words {
		words = append(words, w.Text)
	}
	want := expected(t, s, value)
	if dashed := slices.Insert(slices.Clone(want), s.nth, "--"); strings.HasPrefix(value, "-") && slices.Equal(words, dashed) {
		return true
	}
	if value == "" && strings.HasSuffix(s.line, " %s") && slices.Equal(words, want[:len(want)-1]) {
		return false // an optional word at the end of a line is left out
	}
	if !slices.Equal(words, want) {
		t.Errorf("%s: %q is read as %q, want %q", s.line, value, words, want)
	}
	return true
}

func expected(t *testing.T, s standing, value string) []string {
	t.Helper()
	lines, err := haproxy.Lex([]byte(clean(strings.ReplaceAll(s.line, "%s", "VALUE"))+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, w := range lines[0].Words {
		words = append(words, strings.ReplaceAll(w.Text, "VALUE", value))
	}
	return words
}

func place(t testing.TB, s standing) *render.Templates {
	t.Helper()
	return placed(t, map[string]string{"haproxy.cfg.tmpl": "global\n" + clean(print2(s)) + "\nlast\n"}, render.Options{})
}

// placeOfConfd is place in a directory of confd.
func placeOfConfd(t testing.TB, s standing) *render.Templates {
	t.Helper()
	return placed(t, map[string]string{
		"conf.d/x.toml": "[template]\nsrc = 'x'\ndest = '/x/haproxy.cfg'\nkeys = ['/v']\n", "templates/x": "global\n" + clean(print2(s)) + "\nlast\n",
	}, render.Options{Confd: &confd.Options{}})
}

func placed(t testing.TB, tree map[string]string, o render.Options) *render.Templates {
	t.Helper()
	tmpl, err := render.New(tree, o)
	if err != nil {
		t.Fatal(err)
	}
	return tmpl
}

func TestNoValueChangesTheStructure(t *testing.T) {
	for _, s := range places {
		tmpl := place(t, s)
		fits := s.fits
		if fits == "" {
			fits = benign
		}
		if accepted := structureHolds(t, tmpl, s, fits); accepted == s.never {
			t.Errorf("%s: %q accepted: %v", s.line, fits, accepted)
		}
		for _, value := range attacks {
			if structureHolds(t, tmpl, s, value) && s.never {
				t.Errorf("%s: %q accepted, but no value may stand there", s.line, value)
			}
		}
	}
}

func FuzzNoValueChangesTheStructure(f *testing.F) {
	for _, a := range attacks {
		f.Add(a)
	}
	var parsed []*render.Templates
	for _, s := range places {
		parsed = append(parsed, place(f, s))
	}
	f.Fuzz(func(t *testing.T, value string) {
		for i, s := range places {
			structureHolds(t, parsed[i], s, value)
		}
	})
}

// What must be refused whatever its structure: HAProxy gives it powers under any quoting.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ line, value string }{
		{"server a %s", "$SECRET:80"},
		{"server a %s", "unix@run/x"},
		{"server a %s", "abns@x/1"},
		{"server a %s", "ipv4@unix@/run/x"},
		{"server a %s", "/run/../etc/x"},
		{"server a 192.0.2.1:80 addr %s", ""},
		{"server a %s", "192.0.2.1:80 backup"},
		{"server a %s:80", "$X"},
		{"server a %s:80", "unix@x"},
		{"server a 192.0.2.1:%s", "80 backup"},
		{"server %s 192.0.2.1:80", "a b"},
		{"server a 192.0.2.1:80 addr %s", "$X"},
		{"bind %s", "unix@x"},
		{"bind %s", "$X:80"},
		{"bind %s", "fd@3"},
		{"use_backend %s", "a b"},
		{"http-request deny if %s", "!TRUE"},
		{"http-request deny if %s", "or"},
		{"http-request deny if TRUE %s TRUE", "or"},
		{"use_backend x if %s", "unless"},
		{"acl %s path /", "if"},
		{"http-request deny if { path %s }", "}"},
		{"acl x int(1) %s", "lt"},
		{"http-request set-header X-A %s", "a\r\nX-Evil: 1"},
		{"http-request set-path %s", "/\r\nx"},
		{"http-request set-header X-A %%[str(%s)]", "a),upper("},
		{"http-request deny %s", ""},
		{"acl x path %s", ""},
		{"acl x path \"%s\"", ""},
		{"acl x path -f %s", "/etc/passwd"},
		{"description %s", "\x00"},
		{"description %s", "\xfeAAAAA"},
		{"log %s local0", "fd@1"},
		{"unheard-of %s", "}"},
	} {
		if structureHolds(t, place(t, standing{line: tt.line}), standing{line: tt.line}, tt.value) {
			t.Errorf("%s: %q accepted", tt.line, tt.value)
		}
	}
}

func TestRefusedServerLineCostsOnlyItself(t *testing.T) {
	text := "backend b\n  server a {{getv \"/a\"}}\n  server b {{getv \"/b\"}} check\n  server c 192.0.2.3:80\n"
	got, refused := one(t, text, snapshot(map[string]string{"/a": "192.0.2.1:80", "/b": "unix@/run/x\n evil"}))
	if want := "backend b\n  server a 192.0.2.1:80\n  server c 192.0.2.3:80\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(refused) != 1 || refused[0].File != "haproxy.cfg" || refused[0].Line != 3 || refused[0].Template != "haproxy.cfg.tmpl:3:14" ||
		!strings.Contains(refused[0].Value, `unix@/run/x\n evil`) || refused[0].Reason == "" {
		t.Errorf("refused: %+v", refused)
	}
}

func TestRefusedElsewhereIsAnErrorWithItsPlace(t *testing.T) {
	_, err := try("frontend f\n  http-request deny if { hdr(x-{{getv \"/a\"}}) y }\n", snapshot(map[string]string{"/a": "b) -m found } !{ always_true"}))
	var e *render.Error
	if !errors.As(err, &e) || e.Line != 2 || e.Column != 34 || !strings.Contains(e.Error(), "^") {
		t.Errorf("error %v", err)
	}
}

func TestRawAndQuoters(t *testing.T) {
	snap := snapshot(map[string]string{"/v": `a "b" 50%`})
	for text, want := range map[string]string{
		`{{define "p"}}y {{.}}{{end}}{{include "p" (getv "/v")}}`: `y "a \"b\" 50%"`,

		`{{define "p"}}a{{raw "\n"}}{{.}} {{end}}x {{textOf "p" (getv "/v")}}`: `x "a\na \"b\" 50%"`,
		`{{define "p"}}y{{end}}x {{textOf "p" 1 | upper}}`:                     `x Y`,

		`x {{raw (getv "/v")}}`:                   `x a "b" 50%`,
		`x {{getv "/v"}}`:                         `x "a \"b\" 50%"`,
		`x {{q (getv "/v")}}`:                     `x "a \"b\" 50%"`,
		`x {{getv "/v" | q | q | quote}}`:         `x "a \"b\" 50%"`,
		`x {{logformat (logformat (getv "/v"))}}`: `x "a \"b\" 50%%"`,
		`log-format {{logformat (getv "/v")}}`:    `log-format "a \"b\" 50%%"`,
		`log-format {{getv "/v"}}`:                `log-format "a \"b\" 50%%"`,
		`x "{{getv "/v"}}"`:                       `x "a \"b\" 50%"`,
		`x '{{getv "/v"}}'`:                       `x 'a "b" 50%'`,
		`# {{getv "/v"}}`:                         `# a "b" 50%`,
	} {
		if got, _ := one(t, text+"\n", snap); got != want+"\n" {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{
		`{{define "p"}}{{memo "q" .}}{{end}}{{define "q"}}y{{end}}x {{textOf "p" .Summaries}}`,
		`{{define "p"}}y {{.}}{{end}}x {{include "p" 1 | upper}}`, `{{define "p"}}y {{.}}{{end}}x {{include "p" 1 | printf "%s"}}`,
		`{{define "p"}}y {{.}}{{end}}x {{include "p" 1 | indent 2}}`, `{{define "p"}}y {{.}}{{end}}x {{raw (include "p" 1 | toString)}}`, `x {{raw "a" | upper}}`, `x {{raw "a" | printf "%v"}}`,
	} {
		if got, err := try(text, nil); err == nil {
			t.Errorf("%s: got %q, want an error", text, got.Files.Config())
		}
	}
}

// Against the programs: what arrives in an answer's body and header is the value, and no secret.
func TestAttacksArriveAsData(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		text := "defaults\n mode http\n timeout client 9s\n timeout server 9s\n timeout connect 9s\nfrontend f\n bind " + addr + "\n"
		pairs := make(map[string]string)
		for i, a := range attacks {
			if a == "" || slices.ContainsFunc([]byte(a), func(b byte) bool { return b == 0 || b >= 0xfd }) {
				continue
			}
			header := ""
			if !strings.ContainsAny(a, "\n\r\x1b\x7f") {
				header = fmt.Sprintf("hdr x-v {{getv \"/v/%d\"}}", i)
			}
			pairs[fmt.Sprintf("/v/%d", i)] = a
			text += fmt.Sprintf(" http-request return status 200 content-type text/plain string {{getv \"/v/%d\"}} %s if { path /s/%d }\n", i, header, i)
			text += fmt.Sprintf(" http-request return status 200 content-type text/plain lf-string \"<{{getv \"/v/%d\"}}>\" if { path /f/%d }\n", i, i)
		}
		for _, v := range []string{"-f", "-i", "--", "-m"} {
			pairs["/acl"+v] = v
			text += fmt.Sprintf(" http-request return status 200 content-type text/plain string matched if { path /acl%s } { hdr(x-q) {{getv \"/acl%s\"}} }\n", v, v)
		}
		result, err := try(text, snapshot(pairs))
		if err != nil {
			t.Fatal(err)
		}
		h.Start(t, put(t, result.Files), addr, "SECRET=s3cret")
		client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for i := range attacks {
			want, tried := pairs[fmt.Sprintf("/v/%d", i)]
			if !tried {
				continue
			}
			if _, body := ask(t, client, addr, "x", fmt.Sprintf("/s/%d", i)); body != want {
				t.Errorf("string: %q arrives as %q", want, body)
			}
			if _, body := ask(t, client, addr, "x", fmt.Sprintf("/f/%d", i)); body != "<"+want+">" {
				t.Errorf("lf-string: %q arrives as %q", want, body)
			}
		}
		for _, v := range []string{"-f", "-i", "--", "-m"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/acl"+v, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Q", v)
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("acl pattern %s does not match its own text: %d", v, resp.StatusCode)
			}
		}
	})
}

// The mark of a value must mean nothing to the lexer, whatever its number.
func TestManyValuesOfOneFile(t *testing.T) {
	var want strings.Builder
	want.WriteString("# ")
	for i := range 9000 {
		fmt.Fprintf(&want, "\nserver s%d 192.0.2.1:80", i)
	}
	got, dropped := one(t, "# {{ range until 9000 }}\nserver s{{ . }} 192.0.2.1:80{{ end }}", snapshot(nil))
	if got != want.String()+"\n" || len(dropped) > 0 {
		t.Errorf("dropped %v, file:\n%.300s", dropped, got)
	}
}
