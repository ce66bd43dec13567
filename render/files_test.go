package render_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/render"
)

func TestTreeOfFiles(t *testing.T) {
	tree := map[string]string{
		"haproxy.cfg.tmpl":     "global\n{{ template \"_a.tmpl\" \"x y\" }}{{ template \"defined\" }}{{ include \"sub/_b.tmpl\" }}",
		"_a.tmpl":              "a {{ . }}\n",
		"sub/_b.tmpl":          "{{ define \"defined\" }}b\n{{ end }}c",
		"errors/503.http":      "static {{ untouched }}",
		"_notes.txt":           "no output",
		"maps/x.map.tmpl":      "{{ range .Services }}{{ .Name }} v\n{{ end }}",
		"pages/index.htm.tmpl": "<p>{{ len .Services }}</p>",
	}
	tmpl, err := render.New(tree, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	result, err := tmpl.Render(snapshot(twoServices))
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, name := range result.Files.Names() {
		content, _ := result.Files.Get(name)
		got[name] = string(content)
	}
	want := map[string]string{
		"haproxy.cfg": "global\na \"x y\"\nb\nc\n", "errors/503.http": "static {{ untouched }}", "maps/x.map": "api v\nweb v\n", "pages/index.htm": "<p>2</p>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestNewRefusesATree(t *testing.T) {
	const cfg = "haproxy.cfg.tmpl"
	for name, tt := range map[string]struct {
		tree    map[string]string
		message string
	}{
		"empty":             {nil, "HAProxy cannot run without a configuration"},
		"only a partial":    {map[string]string{"_haproxy.cfg.tmpl": ""}, "must contain haproxy.cfg.tmpl"},
		"same output twice": {map[string]string{cfg: "", "haproxy.cfg": ""}, "remove one of them"},
		"same define twice": {map[string]string{cfg: "", "_a.tmpl": `{{define "x"}}a{{end}}`, "_b.tmpl": `{{define "x"}}b{{end}}`}, "_a.tmpl and in _b.tmpl"},
		"define of a file":  {map[string]string{cfg: "", "_a.tmpl": "a", "_b.tmpl": `{{define "_a.tmpl"}}b{{end}}`}, "_a.tmpl and in _b.tmpl"},
		"path that leaves":  {map[string]string{cfg: "", "../x.tmpl": ""}, "relative path"},
		"not UTF-8":         {map[string]string{cfg: "a\xffb"}, "UTF-8"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := render.New(tt.tree, render.Options{})
			var e *render.Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v, want %q", err, tt.message)
			}
		})
	}
}

func TestMapAndPatternFiles(t *testing.T) {
	for _, tt := range []struct {
		file, line, value, want string // want "" if the line is dropped
	}{
		{"a.map", "{{v}} x", "key", "key x"},
		{"a.map", "{{v}} x", "k y", ""},
		{"a.map", "{{v}} x", "#k", ""},
		{"a.map", "{{v}} x", "", ""},
		{"a.map", "{{v}} x", "k\ny", ""},
		{"a.map", " {{v}} x", "#", ""},
		{"a.map", "k{{v}} x", "#1", "k#1 x"},
		{"a.map", "k {{v}}", "a b", "k a b"},
		{"a.map", "k {{v}}", " a", ""},
		{"a.map", "k {{v}}", "a\r", ""},
		{"a.map", "k {{v}}", "", ""},
		{"a.map", "k {{v}}", "#x", "k #x"},
		{"a.map", "k {{v}}", "\x00", ""},
		{"a.map", "k {{v}}", `"q" $X %T \`, `k "q" $X %T \`},
		{"a.map", "# {{v}}", "a\nb", "# a b"},
		{"a.map", "{{v}}/p x", "h", "h/p x"},
		{"a.map", "{{v}}/p x", "h i", ""},
		{"a.acl", "{{v}}", "a b", "a b"},
		{"a.acl", "{{v}}", "#", ""},
		{"a.lst", "{{v}}", "a\nb", ""},
		{"a.lst", "{{v}}", " a", ""},
		{"a.lst", "{{v}}", "a ", ""},
		{"a.lst", "{{v}}", "", ""},
		{"a.lst", "{{v}}", "\xfe", ""},
		{"a.lst", "{{v}}", "-f", "-f"},
	} {
		tmpl, err := render.New(map[string]string{
			"haproxy.cfg":     "global\n",
			tt.file + ".tmpl": "first 1\n" + strings.ReplaceAll(tt.line, "{{v}}", `{{getv "/v"}}`) + "\nlast 1\n",
		}, render.Options{})
		if err != nil {
			t.Fatal(err)
		}
		result, err := tmpl.Render(withValue(tt.value))
		if err != nil {
			t.Errorf("%s: %s: %q: %v", tt.file, tt.line, tt.value, err)
			continue
		}
		want := "first 1\nlast 1\n"
		if tt.want != "" {
			want = "first 1\n" + tt.want + "\nlast 1\n"
		}
		got, _ := result.Files.Get(tt.file)
		if string(got) != want || (tt.want == "") != (len(result.Dropped) == 1) {
			t.Errorf("%s: %s: %q: got %q, want %q; refused %v", tt.file, tt.line, tt.value, got, want, result.Dropped)
		}
	}
}

func TestOtherFilesTakeNoControlCharacters(t *testing.T) {
	tmpl, err := render.New(map[string]string{"haproxy.cfg": "global\n", "x.lua.tmpl": "a = {{getv \"/v\"}}"}, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"1\nos.exit()", "\x00", "\r"} {
		if _, err := tmpl.Render(withValue(bad)); err == nil {
			t.Errorf("%q accepted", bad)
		}
	}
	result, err := tmpl.Render(withValue("1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := result.Files.Get("x.lua"); string(got) != "a = 1" {
		t.Errorf("got %q", got)
	}
}
