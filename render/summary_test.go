package render_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/Masterminds/sprig/v3"

	"nuncio/internal/catalog"
	"nuncio/render"
	"nuncio/templates"
)

// What is made of the summaries is made again when what services say as a whole changes, and only then.
func TestOutlinesChangeWithWhatServicesSay(t *testing.T) {
	tmpl, err := render.New(map[string]string{
		"haproxy.cfg.tmpl": `{{ memo "all" .Summaries }}{{ define "all" }}# {{ range . }}{{ .Name }}={{ meta . "http.host" }} {{ end }}{{ end }}`,
	}, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	put := func(key, host, meta string) {
		b.Put("/services/"+key, fmt.Appendf(nil, `{"host":%q,"port":80,"meta":{%s}}`, host, meta))
	}
	for i, step := range []struct {
		what   string
		change func()
		want   string
		again  bool
	}{
		{"two services", func() { put("a/1", "192.0.2.1", `"http.host":"x"`); put("b/1", "192.0.2.1", "") }, "a=x b=", true},
		{"an instance moves", func() { put("a/1", "192.0.2.9", `"http.host":"x"`) }, "a=x b=", false},
		{"an instance comes", func() { put("a/2", "192.0.2.3", `"container_id":"7"`) }, "a=x b=", false},
		{"the first instance, with all that it said, goes", func() { put("a/3", "192.0.2.3", `"http.host":"x"`); b.Delete("/services/a/1") }, "a=x b=", false},
		{"a host changes", func() { put("a/3", "192.0.2.3", `"http.host":"y"`) }, "a=y b=", true},
		{"a service comes between", func() { put("aa/1", "192.0.2.3", "") }, "a=y aa= b=", true},
		{"the first service goes", func() { b.Delete("/services/a/2"); b.Delete("/services/a/3") }, "aa= b=", true},
		{"every service goes", func() { b.Delete("/services/aa/1"); b.Delete("/services/b/1") }, "", true},
	} {
		step.change()
		snap := b.Snapshot(int64(i))
		tmpl.SetTurns(0) // no loop can run, so that only what is remembered can be printed
		if _, err := tmpl.Render(snap); (err != nil) != (step.again && step.want != "") {
			t.Errorf("%s: rendered without a turn of a loop: error %v", step.what, err)
		}
		tmpl.SetTurns(100)
		result, err := tmpl.Render(snap)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(strings.TrimPrefix(string(result.Files.Config()), "#")); got != step.want {
			t.Errorf("%s: got %q, want %q", step.what, got, step.want)
		}
	}
}

// With the shipped templates, a change of one instance costs one turn per instance of its own service.
func TestAChangeOfAnInstanceCostsItsServiceOnly(t *testing.T) {
	tmpl, err := render.New(templates.Shipped(), render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	for i := range 2000 {
		b.Put(fmt.Sprintf("/services/s%d/%d", i%100, i), fmt.Appendf(nil, `{"host":"192.0.2.1","port":80,"meta":{"http.host":"h%d","http.path":"/a,/b"}}`, i%100))
	}
	if _, err := tmpl.Render(b.Snapshot(1)); err != nil {
		t.Fatal(err)
	}
	tmpl.SetTurns(20)
	b.Put("/services/s3/3", []byte(`{"host":"192.0.2.2","port":80,"meta":{"http.host":"h3","http.path":"/a,/b"}}`))
	if _, err := tmpl.Render(b.Snapshot(2)); err != nil {
		t.Error(err)
	}
}

func TestAnOutlineHasNoFactsAboutInstances(t *testing.T) {
	_, err := try(`{{ range .Summaries }}{{ meta . "node" }}{{ end }}`, snapshot(twoServices))
	if err == nil || !strings.Contains(err.Error(), "range over .Services instead") {
		t.Errorf("error %v", err)
	}
}

func TestRegularExpressionsAreThoseOfSprig(t *testing.T) {
	theirs, ours := sprig.TxtFuncMap(), render.OwnAndSprig()
	call := func(f any, args []any) (out string) {
		defer func() {
			if p := recover(); p != nil {
				out = "error"
			}
		}()
		in := make([]reflect.Value, len(args))
		for i, a := range args {
			in[i] = reflect.ValueOf(a)
		}
		results := reflect.ValueOf(f).Call(in)
		if len(results) == 2 && !results[1].IsNil() {
			return "error"
		}
		return fmt.Sprintf("%#v", results[0].Interface())
	}
	for name, args := range map[string][]any{
		"regexMatch": {"text"}, "regexFind": {"text"}, "regexFindAll": {"text", 2}, "regexReplaceAll": {"text", "<$1>"},
		"regexReplaceAllLiteral": {"text", "<$1>"}, "regexSplit": {"text", 2},
	} {
		for _, name := range []string{name, strings.Replace(name, "regex", "mustRegex", 1)} {
			for _, pattern := range []string{"a", "^(x+)", "", "[", "$", "^(x+)"} {
				for _, text := range []string{"", "xxaxa", "b"} {
					args[0] = text
					all := append([]any{pattern}, args...)
					if got, want := call(ours[name], all), call(theirs[name], all); got != want {
						t.Errorf("%s %q: got %s, sprig's is %s", name, all, got, want)
					}
				}
			}
		}
	}
}
