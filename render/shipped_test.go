package render_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/render"
	"nuncio/templates"
)

var update = flag.Bool("update", false, "write what is rendered into the golden files")

// shipped renders the shipped templates.
func shipped(t testing.TB, snap *catalog.Snapshot, settings map[string]string) *render.Result {
	t.Helper()
	tmpl, err := render.New(templates.Shipped(), render.Options{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	result, err := tmpl.Render(snap)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// put writes files into a new directory, as a generation has them.
func put(t testing.TB, files haproxy.Files) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for _, name := range files.Names() {
		content, _ := files.Get(name)
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// slowHash is what HAProxy 3.4 says about a password where the machine is busy.
var slowHash = regexp.MustCompile(`(?m)^\[WARNING\].*hash algorithm used for this password.*\n`)

// accept wants HAProxy to take the files without a word.
func accept(t *testing.T, files haproxy.Files) {
	t.Helper()
	dir := put(t, files)
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		out, ok := h.Check(t, dir)
		out = slowHash.ReplaceAllString(out, "")
		if !ok || strings.Contains(out, "WARNING") || strings.Contains(out, "ALERT") {
			t.Errorf("haproxy -c: ok %v\n%s\n%s", ok, out, files.Config())
		}
	})
}

// Each golden file holds records ("KEY VALUE" lines), settings ("NAME VALUE" lines) and the files they make.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			in := map[string]map[string]string{"records": {}, "settings": {}}
			kept := archive.Files[:0:0]
			want := make(map[string]string)
			for _, f := range archive.Files {
				if in[f.Name] == nil {
					want[f.Name] = string(f.Data)
					continue
				}
				kept = append(kept, f)
				for line := range strings.Lines(string(f.Data)) {
					key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
					in[f.Name][key] = value
				}
			}
			result := shipped(t, snapshot(in["records"]), in["settings"])
			got := make(map[string]string)
			for _, name := range result.Files.Names() {
				content, _ := result.Files.Get(name)
				if strings.HasSuffix(name, ".http") {
					continue // copied as it is
				}
				got[name] = string(content)
				kept = append(kept, txtar.File{Name: name, Data: content})
			}
			for _, u := range result.Unmet {
				got["unmet"] += u.String() + "\n"
			}
			if len(result.Unmet) > 0 {
				kept = append(kept, txtar.File{Name: "unmet", Data: []byte(got["unmet"])})
			}
			if *update {
				archive.Files = kept
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("rendered files (-want +got); refresh with -update:\n%s", diff)
			}
			accept(t, result.Files)
		})
	}
}

// The check of the golden files must be able to fail.
func TestCheckRefusesABadFile(t *testing.T) {
	files := shipped(t, snapshot(nil), nil).Files
	bad, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: append(bytes.Clone(files.Config()), "backend x\n    sever a 192.0.2.1:80\n"...)})
	if err != nil {
		t.Fatal(err)
	}
	dir := put(t, bad)
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		if out, ok := h.Check(t, dir); ok {
			t.Errorf("accepted:\n%s", out)
		}
	})
}

func TestThousandsOfServicesAreAccepted(t *testing.T) {
	records := make(map[string]string)
	for i := range 2000 {
		records[fmt.Sprintf("/services/s%04d/i%d", i%1000, i)] = fmt.Sprintf(`{"host":"192.0.2.%d","port":%d,"meta":{"http.host":"s%d.example.com","http.path":"/p%d"}}`, i%250+1, 1000+i, i%1000, i%1000)
	}
	result := shipped(t, snapshot(records), nil)
	if routes, _ := result.Files.Get("maps/routes.map"); bytes.Count(routes, []byte("\n")) != 1001 {
		t.Errorf("%d lines of routes, want a comment and 1000 routes", bytes.Count(routes, []byte("\n")))
	}
	accept(t, result.Files)
}

// A change of endpoints must be a change of server lines and of nothing else: that is what can be done
// without a reload.
func TestEndpointChangeIsAServerLineChange(t *testing.T) {
	before := shipped(t, snapshot(twoServices), nil)
	changed := map[string]string{"/services/web/c": "192.0.2.9:80"}
	maps.Copy(changed, twoServices)
	delete(changed, "/services/web/b")
	after := shipped(t, snapshot(changed), nil)
	for _, name := range before.Files.Names() {
		a, _ := before.Files.Get(name)
		b, _ := after.Files.Get(name)
		if name != haproxy.ConfigFile && !bytes.Equal(a, b) {
			t.Errorf("%s changed", name)
		}
	}
	rest := func(text []byte) string {
		lines := strings.SplitAfter(string(text), "\n")
		return strings.Join(slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "    server ") }), "")
	}
	if diff := cmp.Diff(rest(before.Files.Config()), rest(after.Files.Config())); diff != "" {
		t.Errorf("besides server lines (-before +after):\n%s", diff)
	}
}

// "or", "if" and "unless" are names like others where HAProxy takes them as such; a service that has one stops nobody's updates.
func TestWordsOfConditionsMayBeNames(t *testing.T) {
	const config = `defaults
    timeout connect 1s
    timeout client 1s
    timeout server 1s
listen {{ getv "/v" }}-listen
    bind 127.0.0.1:1
frontend {{ getv "/v" }}-front
    bind 127.0.0.1:2
    use_backend {{ getv "/v" }} if { src 192.0.2.1 }
    use_backend {{ getv "/v" }} unless { src 192.0.2.2 }
    default_backend {{ getv "/v" }}
backend {{ getv "/v" }}
    use-server {{ getv "/v" }} if { src 192.0.2.3 }
    server {{ getv "/v" }} 192.0.2.7:80
`
	tmpl, err := render.New(map[string]string{"haproxy.cfg.tmpl": config}, render.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"or", "if", "unless"} {
		result, err := tmpl.Render(withValue(word))
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(config, `{{ getv "/v" }}`, word); string(result.Files.Config()) != want {
			t.Errorf("%q makes\n%s", word, result.Files.Config())
		}
		accept(t, result.Files)
	}
}
