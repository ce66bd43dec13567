package render_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"nuncio/internal/catalog"
	"nuncio/render"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// snapshot builds one from records and other keys.
func snapshot(pairs map[string]string) *catalog.Snapshot {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	for k, v := range pairs {
		b.Put(k, []byte(v))
	}
	return b.Snapshot(1)
}

// one renders a lone haproxy.cfg.tmpl.
func one(t *testing.T, text string, snap *catalog.Snapshot) (string, []render.Dropped) {
	t.Helper()
	result, err := try(text, snap)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return string(result.Files.Config()), result.Dropped
}

func try(text string, snap *catalog.Snapshot) (*render.Result, error) {
	tmpl, err := render.New(map[string]string{"haproxy.cfg.tmpl": text}, render.Options{
		Getenv:   func(name string) (string, bool) { return "value of " + name, name == "SET" },
		Settings: map[string]string{"http.bind": ":8080"},
	})
	if err != nil {
		return nil, err
	}
	if snap == nil {
		snap = snapshot(nil)
	}
	tmpl.SetTurns(10_000) // of the 2,000,000 that take the race detector a minute
	return tmpl.Render(snap)
}

var twoServices = map[string]string{
	"/services/api/b": `{"host":"192.0.2.3","port":8081,"meta":{"http.path":"/api"}}`,
	"/services/web/a": `{"host":"192.0.2.1","port":8080,"meta":{"http.host":"a.example"}}`,
	"/services/web/b": `{"host":"2001:db8::2","port":"8080","weight":7}`,
	"/config/limit":   "100",
}

func TestData(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{
			"{{range .Services}}a {{.Name}}\n{{range .Instances}}b {{.Addr}} {{.Weight}} {{.State}} {{.Name}}\n{{end}}{{end}}",
			"a api\nb 192.0.2.3:8081 100 ready b\na web\nb 192.0.2.1:8080 100 ready a\nb [2001:db8::2]:8080 7 ready b\n",
		},
		{`a {{len (service "none").Instances}}{{range (service "none").Instances}}x{{end}}`, "a 0\n"},
		{`a {{(service "web").Meta.none | default "-"}} {{meta (service "web") "http.host"}} {{meta (service "web") "x" "y"}}`, "a - a.example y\n"},
		{`{{if (index .Services 0).Meta.none}}x{{end}}a`, "a\n"},
		{`a {{hasService "web"}} {{hasService "x"}}`, "a true false\n"},
		{`a {{setting "http.bind" ":80"}} {{setting "other" "d"}} {{env "SET"}} {{getenv "NONE" "d"}}`, "a :8080 d \"value of SET\" d\n"},
		{`a {{getv "/config/limit"}} {{getv "/none" "d"}} {{exists "/config/limit"}} {{exists "/none"}}`, "a 100 d true false\n"},
	} {
		got, _ := one(t, tt.text, snapshot(twoServices))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestErrorsNameThePlace(t *testing.T) {
	for _, tt := range []struct {
		text         string
		line, column int
		message      string
	}{
		{"a\n b {{ .Nope }}\n", 2, 7, "Nope"},
		{"a\n{{ if }}\n", 2, 0, ""},
		{"a {{ now }}\n", 1, 6, "clock"},
		{"a {{ if (randAlpha 3) }}{{end}}\n", 1, 10, "randomness"},
		{"a {{ nope . }}\n", 1, 6, `"nope" is not defined`},
		{"a {{ _nuncio_mark 1 2 }}\n", 1, 6, "not defined"},
		{"\n  a {{ getv \"/none\" }}", 2, 8, "/none"},
		{"a {{ template \"x\" }}", 1, 15, "no template"},
		{"a {{ fail \"stop\" }}", 1, 6, "stop"},
		{"\na {{ div 1 0 }}", 2, 6, "zero"},
		{"\na {{ .Services }}", 2, 6, "cannot be printed"},
		{"\na {{ (json \"{}\").x }}", 2, 6, "no value"},
		{"{{ define \"x\" }}{{ template \"x\" . }}{{ end }}{{ template \"x\" . }}", 1, 17, "nested more than"},
		{"{{ define \"x\" }}{{ include \"x\" . }}{{ end }}{{ template \"x\" . }}", 1, 0, "nested more than"},
		{"a\n{{ range 2000000000 }}{{ end }}", 2, 10, "turns"},
		{"{{ $x := repeat 1000000 \"0123456789\" }}\n{{ range until 100 }}a {{ $x }}\n{{ end }}", 2, 27, "larger than"},
		{"a {{ index (list) 3 }}", 1, 6, ""},
	} {
		_, err := try(tt.text, snapshot(twoServices))
		var e *render.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: error %v, want an *Error", tt.text, err)
			continue
		}
		if e.File != "haproxy.cfg.tmpl" || e.Line != tt.line || tt.column > 0 && e.Column != tt.column || !strings.Contains(e.Message, tt.message) {
			t.Errorf("%s: got %d:%d, want %d:%d with %q:\n%v", tt.text, e.Line, e.Column, tt.line, tt.column, tt.message, e)
		}
	}
}

// The way round leads through every kind of call: Go ends a process whose stack has no end, and no recover helps.
func TestNestedTemplatesEndInAnError(t *testing.T) {
	for name, text := range map[string]string{
		"template":          `{{ define "x" }}{{ template "x" . }}{{ end }}{{ template "x" . }}`,
		"include":           `{{ define "x" }}{{ include "x" . }}{{ end }}{{ include "x" . }}`,
		"include in turn":   `{{ define "x" }}{{ include "y" . }}{{ end }}{{ define "y" }}{{ template "x" . }}{{ end }}{{ include "x" . }}`,
		"inside a memo":     `{{ define "x" }}{{ include "x" . }}{{ end }}{{ range .Services }}{{ memo "x" . }}{{ end }}`,
		"include of itself": `{{ include "haproxy.cfg.tmpl" . }}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := try(text, snapshot(twoServices))
			var e *render.Error
			if !errors.As(err, &e) || !strings.Contains(e.Message, "nested more than") || e.Line != 1 {
				t.Errorf("error %v, want an *Error that says what is wrong in line 1", err)
			}
		})
	}
}

func TestErrorShowsTheLineAndACaret(t *testing.T) {
	_, err := try("global\n\tmaxconn {{ .Nope }}\n", nil)
	if err == nil || !strings.HasPrefix(err.Error(), "haproxy.cfg.tmpl:2:13: ") || !strings.Contains(err.Error(), "\n     maxconn {{ .Nope }}\n                ^") {
		t.Errorf("no line with a caret below column 13:\n%v", err)
	}
}
