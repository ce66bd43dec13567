package render_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/render"
	"nuncio/templates"
)

// labelKeys are the keys of a service that the shipped templates know, but for tcp.port.
var labelKeys = []string{
	"balance", "http.host", "http.path", "http.strip", "http.redirect", "http.canonical", "http.hsts", "http.headers", "http.sticky", "http.auth", "http.allow", "http.deny",
	"http.rate", "http.timeout", "http.maxconn", "http.cors", "backend.proto", "backend.verify", "backend.proxy-protocol", "canary.of", "canary.percent", "canary.header",
	"check", "check.path", "check.host", "check.status", "check.interval",
}

// hostile builds a snapshot by hand, past the codec, with text in every place that a record has.
func hostile(text string) *catalog.Snapshot {
	meta := map[string]string{"zone": text, text: text}
	for _, key := range labelKeys {
		meta[key] = text
	}
	tcp := map[string]string{"tcp.port": text, "http.auth": text, "check.path": text}
	instance := func(name, host string, id int) *catalog.Instance {
		return &catalog.Instance{Name: name, Host: host, Port: 80, Weight: 1, State: catalog.State(text), Tags: []string{text}, Meta: meta, ID: id}
	}
	conflict := []catalog.Conflict{{Key: text, Winner: text, Value: text, Loser: text, Rejected: text}}
	return &catalog.Snapshot{Extra: []catalog.Pair{
		{Key: "/config/networks/" + text + "/a", Value: text},
		{Key: "/config/networks/list/" + text, Value: text},
		{Key: "/config/users/" + text + "/a", Value: text},
		{Key: "/config/users/staff/" + text, Value: text},
		{Key: "/config/users/staff/a", Value: "$6$saltsalt$12345678" + text},
	}, Services: []*catalog.Service{
		{Name: "evil", Instances: []*catalog.Instance{instance(text, "192.0.2.1", 1), instance("b", text, 2), instance("c", "192.0.2.3", 3)}, Meta: meta, Conflicts: conflict},
		{Name: "evil-tcp", Instances: []*catalog.Instance{instance("c", "192.0.2.3", 3)}, Meta: tcp, Conflicts: conflict},
		{Name: "good", Instances: []*catalog.Instance{{Name: "g", Host: "192.0.2.9", Port: 80, Weight: 1, State: catalog.StateReady, Meta: map[string]string{}, ID: 9}}, Meta: map[string]string{}},
	}}
}

// The lines that the shipped templates can make of a record, as words joined by "|"; a value is one word of
// any text.
var fromRecords = regexp.MustCompile(strings.NewReplacer(
	"NAME", `[A-Za-z0-9_.@:-]+`, "STATUS", `[1-5][0-9]{2}`,
	"PROFILE", `(http|tcp)-(roundrobin|leastconn|random|first|source|uri)(-check(-[1-5][0-9]{2}(to[1-5][0-9]{2})?)?)?(-sticky)?`,
).Replace(`(?s)^(backend\|(evil|evil-tcp|good)\|from\|PROFILE|defaults\|PROFILE\|from\|common|mode\|tcp|balance\|(roundrobin|leastconn|random|first|source|uri)|hash-type\|consistent|` +
	`server\|[A-Za-z0-9_.:-]+\|[A-Za-z0-9_.:\[\]-]+:80\|id\|[1239]\|weight\|[01](\|check(\|inter\|[1-9][0-9]*(ms|s|m))?)?(\|maxconn\|[1-9][0-9]*)?(\|ssl\|sni\|var\(txn\.host\)\|verify\|(none|required\|ca-file\|@system-ca)(\|check-sni\|[a-z0-9_.-]+)?)?(\|proto\|h2(\|check-proto\|h2)?)?(\|send-proxy(-v2)?(\|check-send-proxy)?)?(\|resolvers\|nuncio\|init-addr\|last,none)?(\|backup)?(\|disabled)?|` +
	`http-request\|set-var\(txn\.named\)\|req\.hdr\([a-z0-9-]+\)|http-request\|set-var\(txn\.chosen\)\|bool\(true\)\|if\|{\|req\.hdr\([a-z0-9-]+\)\|-m\|found\|}\|{\|var\(txn\.service\),concat\(/canary\.header/[a-z0-9-]+:,txn\.named\),map_str\(maps/labels\.map\)\|-m\|found\|}|` +
	`http-check\|expect\|status\|STATUS(-STATUS)?|userlist\|users-NAME|user\|NAME\|password\|\$6\$saltsalt\$12345678[A-Za-z0-9./$=,]*|` +
	`http-request\|unset-var\(txn\.unknown\)\|if\|{\|var\(txn\.auth\)\|-m\|str\|--\|NAME\|}|http-request\|auth\|realm\|NAME\|if\|{\|var\(txn\.auth\)\|-m\|str\|--\|NAME\|}\|!{\|http_auth\(users-NAME\)\|}|` +
	`frontend\|tcp-[0-9]+|option\|tcplog|bind\|\*:[0-9]+|tcp-request\|content\|set-var\(txn\.service\)\|dst_port,map_str\(maps/ports\.map\)|use_backend\|%\[var\(txn\.service\)\])$`))

// checkHostile is the promise for the shipped templates: whatever text a record holds, the file has the lines
// of the templates and no others, and the service beside it is served.
func checkHostile(t *testing.T, tmpl *render.Templates, fixed map[string]bool, text string) {
	t.Helper()
	result, err := tmpl.Render(hostile(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	lines, err := haproxy.Lex(result.Files.Config(), nil)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	good := 0
	for _, l := range lines {
		var words []string
		for _, w := range l.Words {
			words = append(words, strings.ReplaceAll(w.Text, "|", "_"))
		}
		line := strings.Join(words, "|")
		if !fixed[line] && !fromRecords.MatchString(line) {
			t.Errorf("%q makes the line %q", text, line)
		}
		if strings.HasPrefix(line, "server|c|192.0.2.3:80|id|3|weight|1") || line == "server|g|192.0.2.9:80|id|9|weight|1|check" {
			good++
		}
	}
	if want := 3; good != want && text != "maint" && text != "drain" {
		t.Errorf("%q: %d good servers, want %d:\n%s", text, good, want, result.Files.Config())
	}
	for name, want := range map[string]*regexp.Regexp{
		"maps/routes.map":   regexp.MustCompile(`^[a-z0-9_.*-]*/[!-~]* (evil|good)\n$`),
		"maps/ports.map":    regexp.MustCompile(`^[0-9]{1,5} evil-tcp\n$`),
		"maps/labels.map":   regexp.MustCompile(`^(evil|evil-tcp|good)/[a-z.]+(/[!-~]*)? [!-~]+\n$`),
		"maps/networks.map": regexp.MustCompile(`^[A-Za-z0-9_.:-]+/([0-9A-F]*|exists) yes\n$`),
	} {
		content, _ := result.Files.Get(name)
		for line := range strings.Lines(string(content)) {
			if !strings.HasPrefix(line, "# ") && !want.MatchString(line) {
				t.Errorf("%q makes the line %q of %s", text, line, name)
			}
		}
	}
}

// golden reads the pairs of one file of a golden file.
func golden(t testing.TB, path, name string) map[string]string {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pairs := map[string]string{}
	for _, f := range archive.Files {
		for line := range strings.Lines(string(f.Data)) {
			if key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " "); f.Name == name {
				pairs[key] = value
			}
		}
	}
	return pairs
}

// fixedLines are the lines that the shipped templates have without services, and with services that use every label.
func fixedLines(t testing.TB, tmpl *render.Templates) map[string]bool {
	t.Helper()
	all := snapshot(golden(t, "testdata/labels.txtar", "records"))
	fixed := make(map[string]bool)
	for _, snap := range []*catalog.Snapshot{{}, all} {
		result, err := tmpl.Render(snap)
		if err != nil {
			t.Fatal(err)
		}
		lines, err := haproxy.Lex(result.Files.Config(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			var words []string
			for _, w := range l.Words {
				words = append(words, strings.ReplaceAll(w.Text, "|", "_"))
			}
			fixed[strings.Join(words, "|")] = true
		}
	}
	return fixed
}

func FuzzNoRecordChangesTheShippedConfiguration(f *testing.F) {
	for _, a := range attacks {
		f.Add(a)
	}
	for _, ok := range []string{"web", "maint", "drain", "/p", "8080", "80", "a.example,*.b.example", "uri", "/a,b", "true", "https", "staff", "100/10s", "5m", "200-299", "https://a.example", "3600", "none", "192.0.2.0/22", "x:y", "good", "h2c", "v2", "off", "evil", "100", "200ms"} {
		f.Add(ok)
	}
	tmpl, err := render.New(templates.Shipped(), render.Options{})
	if err != nil {
		f.Fatal(err)
	}
	fixed := fixedLines(f, tmpl)
	f.Fuzz(func(t *testing.T, text string) { checkHostile(t, tmpl, fixed, text) })
}

// Whatever attack a record carries, HAProxy takes the file that the shipped templates make of it.
func TestHostileRecordsDoNotStopHAProxy(t *testing.T) {
	tmpl, err := render.New(templates.Shipped(), render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{attacks[0], attacks[1], `"${SECRET}"`, "%[env(SECRET)]", "/a\\b\"$HOME#%T", "8080", "99999", "é", "{", "\x00"} {
		t.Run(fmt.Sprintf("%q", text), func(t *testing.T) {
			result, err := tmpl.Render(hostile(text))
			if err != nil {
				t.Fatal(err)
			}
			accept(t, result.Files)
		})
	}
}

// Lists that would take all the time of a rendering are no wish that is met, and hold nobody up.
func TestHugeListsHoldNobodyUp(t *testing.T) {
	many := strings.Repeat("a.b,", 400) + "a.b"
	records := map[string]string{"/services/good/1": `{"host":"192.0.2.1","port":80,"meta":{"http.host":"good.example"}}`}
	for i := range 20 {
		records[fmt.Sprintf("/services/evil-%d/1", i)] = fmt.Sprintf(`{"host":"192.0.2.2","port":80,"meta":{"http.host":%[1]q,"http.path":%[1]q,"http.strip":"true","http.cors":%[1]q}}`, many)
	}
	result := shipped(t, snapshot(records), nil)
	if routes := result.Files.Text("maps/routes.map").String(); !strings.Contains(routes, "good.example/ good") || strings.Contains(routes, "evil") {
		t.Errorf("routes: %.300q", routes)
	}
	if len(result.Unmet) < 20 {
		t.Errorf("unmet wishes: %v", result.Unmet)
	}
}
