package render_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/catalog"
	"nuncio/render"
	"nuncio/templates"
)

// What is taken from the last rendering must be what a first rendering makes: lines, dropped lines and wishes.
func TestARenderingAfterManyChangesEqualsAFirstOne(t *testing.T) {
	for name, tree := range map[string]map[string]string{
		"shipped": templates.Shipped(),
		"with values in front of, within and behind the loop, and lines that are dropped": {
			"haproxy.cfg.tmpl": "{{ memo \"p\" .Services }}\n{{ define \"p\" }}backend {{ .Name }} # {{ len .Instances }}\n{{ range .Conflicts }}# {{ .Key }} {{ .Winner }}\n{{ end }}" +
				"{{ range .Instances }}{{ if ne .Weight 3 }} server {{ .Name }} {{ .Addr }} weight {{ .Weight }} cookie {{ meta . \"c\" \"none\" }}{{ with .Tags }} # {{ join . \",\" }}{{ end }}\n{{ end }}{{ else }}# none\n{{ end }}" +
				"{{ range $i, $v := .Instances }}# {{ $i }} {{ $v.Name }}\n{{ end }}# {{ .Name }} ends\n{{ end }}",
		},
	} {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, 2))
			builder := catalog.NewBuilder(catalog.BuilderOptions{})
			last, err := render.New(tree, render.Options{})
			if err != nil {
				t.Fatal(err)
			}
			for step := range 150 {
				for range 1 + rnd.IntN(3) {
					key := fmt.Sprintf("/services/s%d/i%d", rnd.IntN(3), rnd.IntN(12))
					if rnd.IntN(4) == 0 {
						builder.Delete(key)
						continue
					}
					builder.Put(key, fmt.Appendf(nil, `{"host":"192.0.2.%d","port":%d,"weight":%d,"state":%q,"tags":["a","b"],"meta":{"c":%q,"http.host":"h%d.example.com"}}`,
						1+rnd.IntN(9), 1+rnd.IntN(9), rnd.IntN(6), []string{"ready", "drain", "maint"}[rnd.IntN(3)], []string{"x", "y z", "q\r", ""}[rnd.IntN(4)], rnd.IntN(2)))
				}
				snapshot := builder.Snapshot(int64(step))
				got, err := last.Render(snapshot)
				if err != nil {
					t.Fatal(err)
				}
				first, err := render.New(tree, render.Options{})
				if err != nil {
					t.Fatal(err)
				}
				want, err := first.Render(snapshot)
				if err != nil {
					t.Fatal(err)
				}
				if got.Files.Digest() != want.Files.Digest() {
					t.Fatalf("step %d (-first +last):\n%s", step, cmp.Diff(string(want.Files.Config()), string(got.Files.Config())))
				}
				if diff := cmp.Diff(want.Dropped, got.Dropped) + cmp.Diff(want.Unmet, got.Unmet); diff != "" {
					t.Fatalf("step %d (-first +last):\n%s", step, diff)
				}
			}
		})
	}
}

// An error within the body of a loop names its own place, and the template as its author knows it.
func TestAnErrorInALoopNamesItsPlace(t *testing.T) {
	_, err := try("global\n{{ range .Services }}{{ range .Instances }}\n # {{ .Nonsense }}\n{{ end }}{{ end }}", snapshot(twoServices))
	want := &render.Error{
		File: "haproxy.cfg.tmpl", Line: 3, Column: 7, Excerpt: " # {{ .Nonsense }}",
		Message: `executing "haproxy.cfg.tmpl" at <.Nonsense>: can't evaluate field Nonsense in type *catalog.Instance`,
	}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
