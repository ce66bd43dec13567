package render_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/catalog"
	"nuncio/render"
	"nuncio/templates"
)

const memoConfig = `global
{{ range .Services }}
{{ memo "_b.tmpl" . }}{{ memo "other" . }}
{{ end }}last
`

var memoTree = map[string]string{
	"haproxy.cfg.tmpl": memoConfig,
	"m/x.map.tmpl":     `{{ range .Services }}{{ memo "line" . }}{{ end }}`,
	"_b.tmpl":          "backend {{ .Name }}\n{{ range .Instances }} server {{ .Name }} {{ .Addr }} weight {{ .Weight }}\n{{ end }}",
	"_more.tmpl":       `{{ define "other" }} description {{ .Meta.note | default "-" }}{{ end }}{{ define "line" }}{{ .Name }} {{ .Meta.note }}{{ end }}`,
}

var memoList = map[string]string{
	"haproxy.cfg.tmpl": "global\n\n{{ memo \"b\" .Services }} {{ memo \"all\" .Summaries }}\nlast",
	"_b.tmpl":          `{{ define "b" }}` + memoTree["_b.tmpl"] + `{{ end }}{{ define "all" }}# {{ range . }}{{ .Name }} {{ meta . "http.path" }},{{ end }}{{ end }}`,
}

// However services come, change and go: a rendering that remembers equals one that does not.
func TestMemoEqualsAFreshRendering(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for name, tree := range map[string]map[string]string{"small": memoTree, "list": memoList, "shipped": templates.Shipped()} {
		t.Run(name, func(t *testing.T) {
			remembering, err := render.New(tree, render.Options{})
			if err != nil {
				t.Fatal(err)
			}
			b := catalog.NewBuilder(catalog.BuilderOptions{})
			for i := range 100 {
				key := fmt.Sprintf("/services/s%d/i%d", rnd.IntN(6), rnd.IntN(4))
				switch rnd.IntN(4) {
				case 0:
					b.Delete(key)
				default:
					note := []string{"a", "b c", "#", `"x\`, "", "%T"}[rnd.IntN(6)]
					b.Put(key, fmt.Appendf(nil, `{"host":"192.0.2.%d","port":80,"meta":{"note":%q,"http.path":"/%d"}}`, 1+rnd.IntN(200), note, rnd.IntN(3)))
				}
				snap := b.Snapshot(int64(i))
				if i%7 == 0 { // a value that no codec lets through, and the pointers of the rest
					bad := *snap.Services[0].Instances[0]
					bad.Host = "unix@"
					evil := *snap.Services[0]
					evil.Instances = append([]*catalog.Instance{&bad}, evil.Instances...)
					snap = &catalog.Snapshot{Services: append([]*catalog.Service{&evil}, snap.Services[1:]...)}
				}
				fresh, err := render.New(tree, render.Options{})
				if err != nil {
					t.Fatal(err)
				}
				want, wantErr := fresh.Render(snap)
				got, gotErr := remembering.Render(snap)
				if fmt.Sprint(wantErr) != fmt.Sprint(gotErr) {
					t.Fatalf("step %d: errors %v and %v", i, wantErr, gotErr)
				}
				if wantErr != nil {
					continue
				}
				if diff := cmp.Diff(string(want.Files.Config()), string(got.Files.Config())); diff != "" || !want.Files.Equal(got.Files) {
					t.Fatalf("step %d (-fresh +remembering):\n%s", i, diff)
				}
				if diff := cmp.Diff(want.Dropped, got.Dropped); diff != "" {
					t.Fatalf("step %d: refused (-fresh +remembering):\n%s", i, diff)
				}
				if i%7 == 0 && len(got.Dropped) == 0 {
					t.Fatalf("step %d: the bad address was not refused", i)
				}
			}
		})
	}
}

func TestMemoRefusesWhatItCouldNotRemember(t *testing.T) {
	for call, message := range map[string]string{
		`{{ memo "p" (service "web") }}{{ define "p" }}{{ getv "/x" "d" }}{{ end }}`:                       `"getv" inside memo "p"`,
		`{{ memo "p" (service "web") }}{{ define "p" }}{{ range gets "/*" }}{{ end }}{{ end }}`:            `"gets" inside memo "p"`,
		`{{ memo "p" (service "web") }}{{ define "p" }}{{ (service "x").Name }}{{ end }}`:                  `"service" inside memo "p"`,
		`{{ memo "p" (service "web") }}{{ define "p" }}{{ memo "q" . }}{{ end }}{{ define "q" }}{{ end }}`: `within memo`,
		`{{ memo "p" "web" }}{{ define "p" }}{{ end }}`:                                                    `must be a service`,
		`{{ memo "none" (service "web") }}`:                                                                `no template "none"`,
		`x {{ memo "p" (service "web") }}{{ define "p" }}a{{ end }}`:                                       `stand alone`,
		`"{{ memo "p" (service "web") }}"{{ define "p" }}a{{ end }}`:                                       `stand alone`,
	} {
		_, err := try(call, snapshot(twoServices))
		if err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%s: error %v, want %q", call, err, message)
		}
	}
}

// As every error does, that of text beside a memo names line and column, and shows the line.
func TestTextBesideMemoIsAnErrorWithItsPlace(t *testing.T) {
	const beside = `{{ memo "p" (service "web") }}`
	for text, column := range map[string]int{beside + " # end": 4, "x " + beside: 6, "  " + beside + beside + "x": 6} {
		_, err := try("global\n"+text+"\n{{ define \"p\" }}a{{ end }}", snapshot(twoServices))
		got, ok := errors.AsType[*render.Error](err)
		if !ok || got.File != "haproxy.cfg.tmpl" || got.Line != 2 || got.Column != column || got.Excerpt != text {
			t.Errorf("%s: error %+v, want line 2, column %d and the line", text, got, column)
		}
	}
}

// filled makes a builder with n instances, 100 of each service.
func filled(n int) *catalog.Builder {
	builder := catalog.NewBuilder(catalog.BuilderOptions{Limits: catalog.Limits{Keys: 200_000, Bytes: 1 << 30}})
	for i := range n {
		builder.Put(fmt.Sprintf("/services/s%03d/i%d", i%max(1, n/100), i), fmt.Appendf(nil, `{"host":"192.0.2.%d","port":%d}`, 1+i%250, 1+i%60000))
	}
	return builder
}

func BenchmarkRenderAfterOneChange(b *testing.B) {
	for _, instances := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(instances), func(b *testing.B) {
			builder := filled(instances)
			tmpl, err := render.New(templates.Shipped(), render.Options{})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := tmpl.Render(builder.Snapshot(0)); err != nil {
				b.Fatal(err)
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n++
				builder.Put("/services/s001/i1", fmt.Appendf(nil, `{"host":"192.0.2.1","port":%d}`, 1+n%60000))
				if _, err := tmpl.Render(builder.Snapshot(int64(n))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkRenderFromNothing(b *testing.B) {
	for _, instances := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(instances), func(b *testing.B) {
			snap := filled(instances).Snapshot(1)
			b.ReportAllocs()
			for b.Loop() {
				tmpl, err := render.New(templates.Shipped(), render.Options{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := tmpl.Render(snap); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A template that fails for hours, while services change, must not gather what it made for each of their versions.
func TestFailedRenderingsAreNotRemembered(t *testing.T) {
	templates, err := render.New(map[string]string{
		"haproxy.cfg.tmpl": `{{ range .Services }}{{ memo "_b.tmpl" . }}{{ end }}{{ fail "stop" }}`, "_b.tmpl": "backend {{ .Name }}\n",
	}, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	for i := range 20 {
		b.Put("/services/web/a", fmt.Appendf(nil, "192.0.2.1:%d", 1+i))
		if _, err := templates.Render(b.Snapshot(int64(i))); err == nil {
			t.Fatal("the template does not fail; the test is worth nothing")
		}
	}
	if n := templates.Remembered(); n > 1 {
		t.Errorf("%d versions of one service are remembered", n)
	}
}
