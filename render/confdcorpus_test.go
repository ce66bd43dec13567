package render_test

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
	"nuncio/render"
)

// confdCase is a set-up of confd: a file in testdata/confd. Its comment names the class of facts that it stands for, and
// "trust-values" if its values are directives. Files below want/ are what confd prints; -update writes them from confdPrints.
type confdCase struct {
	tree, want map[string]string
	keys, env  map[string]string
	trust      bool
}

func readConfdCase(t testing.TB, file string) confdCase {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := confdCase{tree: map[string]string{}, want: map[string]string{}, trust: strings.Contains(string(a.Comment), "\ntrust-values\n")}
	for _, f := range a.Files {
		switch name, wanted := strings.CutPrefix(f.Name, "want/"); {
		case wanted:
			c.want[name] = string(f.Data)
		case f.Name == "keys.json":
			err = json.Unmarshal(f.Data, &c.keys)
		case f.Name == "env.json":
			err = json.Unmarshal(f.Data, &c.env)
		default:
			c.tree[f.Name] = string(f.Data)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// oracle returns what confd prints for each dest.
func (c confdCase) oracle(t testing.TB) map[string]string {
	t.Helper()
	made := map[string]string{}
	for name, text := range c.tree {
		if !strings.HasSuffix(name, ".toml") {
			continue
		}
		var f struct {
			Template struct {
				Src, Dest, Prefix string
				Keys              []string
			}
		}
		if err := toml.Unmarshal([]byte(text), &f); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(f.Template.Dest, "rsyslog") {
			continue // not HAProxy's
		}
		printed, err := confdPrints(c.tree["templates/"+f.Template.Src], f.Template.Prefix, f.Template.Keys, c.keys, c.env)
		if err != nil {
			t.Fatalf("%s: confd fails: %v", name, err)
		}
		made[f.Template.Dest] = printed
	}
	return made
}

func (c confdCase) templates(o render.Options) (*render.Templates, error) {
	o.Confd = &confd.Options{}
	o.Getenv = func(name string) (string, bool) { v, ok := c.env[name]; return v, ok }
	return render.New(c.tree, o)
}

func (c confdCase) snapshot(t testing.TB) *catalog.Snapshot {
	t.Helper()
	layout, err := confd.Parse(c.tree, confd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := catalog.NewBuilder(catalog.BuilderOptions{NoRecords: true, Watched: catalog.NewRanges("", layout.Keys())})
	for k, v := range c.keys {
		b.Put(k, []byte(v))
	}
	return b.Snapshot(1)
}

// rendered returns the files by their dest; references to other dests are confd's again.
func (c confdCase) rendered(t testing.TB, o render.Options) (files map[string]string, dropped int, err error) {
	t.Helper()
	tmpl, err := c.templates(o)
	if err != nil {
		return nil, 0, err
	}
	result, err := tmpl.Render(c.snapshot(t))
	if err != nil {
		return nil, 0, err
	}
	files = map[string]string{}
	for _, r := range tmpl.Layout().Resources {
		text, _ := result.Files.Get(r.Out)
		made := string(text)
		if r.Out == "haproxy.cfg" {
			for _, other := range tmpl.Layout().Resources[1:] {
				if strings.Contains(made, other.Dest) {
					t.Errorf("%s: still names %s", r.Out, other.Dest)
				}
				made = strings.ReplaceAll(made, other.Out, other.Dest)
			}
		}
		files[r.Dest] = made
	}
	return files, len(result.Dropped), nil
}

// withLF ends a file as HAProxy wants it.
func withLF(files map[string]string) map[string]string {
	out := map[string]string{}
	for name, text := range files {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		out[name] = text
	}
	return out
}

func confdCases(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/confd/*.txtar")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d set-ups of confd, %v", len(files), err)
	}
	return files
}

// TestConfdCorpus renders every set-up with --confd alone as confd does, and those whose values are directives with
// --trust-values, and only so.
func TestConfdCorpus(t *testing.T) {
	for _, file := range confdCases(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			c := readConfdCase(t, file)
			printed := c.oracle(t)
			if *update {
				writeWant(t, file, printed)
				return
			}
			want := map[string]string{}
			for dest, text := range c.want {
				want["/"+dest] = text
			}
			if diff := cmp.Diff(want, withLF(printed)); diff != "" {
				t.Fatalf("confd prints something else than the file says (-want +confd):\n%s", diff)
			}
			files, dropped, err := c.rendered(t, render.Options{})
			same := err == nil && dropped == 0 && cmp.Equal(want, withLF(files))
			if !c.trust {
				if !same {
					t.Errorf("dropped %d lines, error %v, (-confd +nuncio):\n%s", dropped, err, cmp.Diff(want, withLF(files)))
				}
				return
			}
			if same {
				t.Error("its values are no directives: it needs no --trust-values")
			}
			files, _, err = c.rendered(t, render.Options{TrustValues: true})
			if diff := cmp.Diff(want, withLF(files)); err != nil || diff != "" {
				t.Errorf("with --trust-values: error %v, (-confd +nuncio):\n%s", err, diff)
			}
		})
	}
}

func writeWant(t *testing.T, file string, printed map[string]string) {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	a.Files = slices.DeleteFunc(a.Files, func(f txtar.File) bool { return strings.HasPrefix(f.Name, "want/") })
	for _, dest := range slices.Sorted(maps.Keys(printed)) {
		a.Files = append(a.Files, txtar.File{Name: "want" + dest, Data: []byte(withLF(printed)[dest])})
	}
	if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
		t.Fatal(err)
	}
}
