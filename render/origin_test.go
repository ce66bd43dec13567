package render_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/render"
	"nuncio/templates"
)

// annotated renders a tree with origins and returns a file with the origin of each line in front of it.
func annotated(t *testing.T, tree map[string]string, records map[string]string, file string) string {
	t.Helper()
	templates, err := render.New(tree, render.Options{Origins: true})
	if err != nil {
		t.Fatal(err)
	}
	result, err := templates.Render(snapshot(records))
	if err != nil {
		t.Fatal(err)
	}
	text, _ := result.Files.Get(file)
	lines := strings.SplitAfter(string(text), "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	origins := result.Origins[file]
	if len(origins) != len(lines) {
		t.Fatalf("%s: %d origins for %d lines", file, len(origins), len(lines))
	}
	var b strings.Builder
	for i, o := range origins {
		fmt.Fprintf(&b, "%s:%d|%s", o.Template, o.Line, lines[i])
	}
	return b.String()
}

func TestOrigins(t *testing.T) {
	records := map[string]string{"/services/web/a": "192.0.2.1:80", "/services/web/b": "unix@/x:1", "/k": "raw 1\n\traw 2"}
	tree := map[string]string{
		"haproxy.cfg.tmpl": "defaults\n\tmode http\n\n{{ memo \"_b.tmpl\" .Services }}\n" +
			"{{ if true }}listen a {{ else }}listen b {{ end }}# {{ (service \"web\").Name }}\n" +
			"  {{ template \"x\" }}\n  {{ \"#\" | raw }} x\n{{ raw (getv \"/k\") }}\n{{/* no\nline */ -}}\nlast",
		"_b.tmpl":       "{{ define \"x\" }}# x{{ end }}\nbackend {{ .Name }}\n{{- range .Instances }}\n server {{ .Name }} {{ .Addr }}\n{{- end }}",
		"m.map.tmpl":    "{{ range .Services }}\n{{ .Name }} 1\n{{ end }}",
		"errors/x.http": "HTTP/1.0 503\n\n",
	}
	for file, want := range map[string]string{
		"haproxy.cfg": "haproxy.cfg.tmpl:1|defaults\nhaproxy.cfg.tmpl:2|\tmode http\nhaproxy.cfg.tmpl:3|\n" +
			"_b.tmpl:1|\n_b.tmpl:2|backend web\n_b.tmpl:4| server a 192.0.2.1:80\n" +
			"haproxy.cfg.tmpl:5|listen a # web\n_b.tmpl:1|  # x\nhaproxy.cfg.tmpl:7|  # x\n" +
			"haproxy.cfg.tmpl:8|raw 1\nhaproxy.cfg.tmpl:8|\traw 2\nhaproxy.cfg.tmpl:11|last\n",
		"m.map":         "m.map.tmpl:1|\nm.map.tmpl:2|web 1\n",
		"errors/x.http": "errors/x.http:1|HTTP/1.0 503\nerrors/x.http:2|\n",
	} {
		if diff := cmp.Diff(want, annotated(t, tree, records, file)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
}

// Asking for origins changes no byte, and every line of the shipped files has one.
func TestOriginsChangeNothing(t *testing.T) {
	records := map[string]string{}
	for i := range 20 {
		records[fmt.Sprintf("/services/s%d/a", i)] = fmt.Sprintf(`{"host":"192.0.2.1","port":80,"meta":{"http.host":"s%d.example.com","tcp.port":"%d"}}`, i, 1+i%4)
	}
	plain := shipped(t, snapshot(records), nil)
	with, err := render.New(templates.Shipped(), render.Options{Origins: true})
	if err != nil {
		t.Fatal(err)
	}
	result, err := with.Render(snapshot(records))
	if err != nil {
		t.Fatal(err)
	}
	if !result.Files.Equal(plain.Files) {
		t.Errorf("with origins the files differ:\n%s", cmp.Diff(string(plain.Files.Config()), string(result.Files.Config())))
	}
	for file, origins := range result.Origins {
		text, _ := result.Files.Get(file)
		if n := strings.Count(string(text), "\n"); n != len(origins) {
			t.Errorf("%s: %d origins for %d lines", file, len(origins), n)
		}
		for i, o := range origins {
			if o == (render.Origin{}) {
				t.Errorf("%s: line %d has no origin", file, i+1)
			}
		}
	}
}
