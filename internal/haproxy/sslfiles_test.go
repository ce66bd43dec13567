package haproxy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
)

func TestSSLFiles(t *testing.T) {
	text := `global
    crt-base base
frontend crt
    bind :443 ssl crt certs crt "/etc/my certs/a.pem" crt-list lists/a.lst ca-file /ca.pem crl-file crl.pem # crt no
    bind crt ssl crt last.pem
    http-request set-header crt no.pem
backend b
    server crt 192.0.2.7:1 ssl crt client.pem ca-file "$CA"
    default-server ca-file default.pem
crt-store s
    load crt "stored.pem" key /keys/stored.key alias x
`
	var got []string
	for _, f := range haproxy.SSLFiles(text) {
		got = append(got, f.Line+" "+f.Keyword+" "+f.Name)
		if word := text[f.Start:f.End]; strings.Trim(word, `"`) != f.Name {
			t.Errorf("%s is not at %q", f.Name, word)
		}
	}
	want := []string{
		"bind crt certs", "bind crt /etc/my certs/a.pem", "bind crt-list lists/a.lst", "bind ca-file /ca.pem", "bind crl-file crl.pem",
		"bind crt last.pem", "server crt client.pem", "default-server ca-file default.pem", "load crt stored.pem", "load key /keys/stored.key",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	named := haproxy.NamedBySSL(text)
	for name, want := range map[string]bool{
		"certs/a.pem": true, "certs/sub/a.pem": true, "lists/a.lst": true, "base/last.pem": true, "last.pem.key": true, "last.key": false,
		"haproxy.cfg": false, "no.pem": false, "certsX/a": false,
	} {
		if named(name) != want {
			t.Errorf("%s: %v", name, fmt.Sprint(!want))
		}
	}
}

// A configuration with ten thousand servers that all name an authority must not have ten thousand files.
func TestFilesOfManyServersAreFoundOnce(t *testing.T) {
	var texts []haproxy.Text
	for i := range 100 {
		text := fmt.Sprintf("backend b%d\n", i)
		for j := range 100 {
			text += fmt.Sprintf("    server s%d 192.0.2.7:1 ssl ca-file /ca.pem crt \"my.pem\"\n    server t%d 192.0.2.7:1 ssl ca-file @system-ca\n", j, j)
		}
		texts = append(texts, haproxy.NewText(text))
	}
	whole := haproxy.Join(texts...)
	if got := whole.SSLFiles(); len(got) != 2 {
		t.Errorf("%d files", len(got))
	}
	inside, outside := whole.Inside()
	if want := strings.ReplaceAll(whole.String(), "/ca.pem", "outside/ca.pem"); len(outside) != 1 || inside.String() != want {
		t.Errorf("%d paths, and the text as expected: %v", len(outside), inside.String() == want)
	}
	if again, _ := whole.Inside(); !again.Equal(inside) {
		t.Error("a second time it differs")
	}
	// Cut where no line ends.
	parts := haproxy.Join(haproxy.NewText("bind :1 ssl c"), haproxy.NewText("rt /a.pem\n"))
	if inside, outside := parts.Inside(); inside.String() != "bind :1 ssl crt outside/a.pem\n" || len(outside) != 1 {
		t.Errorf("got %q, %v", inside.String(), outside)
	}
}
