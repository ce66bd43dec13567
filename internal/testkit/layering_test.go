package testkit_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// layers has the packages by layer. A package imports packages of lower layers only. A new package must be added here and
// to docs/architecture.md.
var layers = []map[string]string{
	1: {
		"internal/catalog":       "it is the contract that both programs share",
		"internal/confd":         "it holds facts of another program",
		"internal/haproxy":       "it holds facts of another program",
		"internal/certs":         "it reads PEM, wherever it comes from",
		"internal/etcd":          "it opens connections and knows nothing of what is stored",
		"internal/etcd/embedded": "it is a store, and the registrar must not link one",
		"internal/cli":           "it reads command lines and guards listeners, whatever they are for",
		"internal/proc":          "it starts and reaps processes, whichever they are",
		"templates":              "it is text",
	},
	2: {
		"watch":    "it turns the store into snapshots",
		"render":   "it is pure: snapshot in, files out",
		"reload":   "it gets files into HAProxy, wherever they come from",
		"register": "it writes records, and never reads what the proxy does",
	},
	3: {
		"reconcile": "it decides what is desired, and not how anything is done",
	},
	4: {
		"status": "it shows what the packages below report",
	},
	5: {
		"cmd/nuncio":           "it wires",
		"cmd/nuncio-registrar": "it wires",
		"deploy":               "it is files, and the tests that run them",
	},
}

// notImported lists imports that a package's own files must not have; its libraries may have them.
var notImported = []struct{ from, pkg, why string }{
	{"render", "os", "render is pure: texts in, files out"},
	{"render", "os/exec", "render is pure: it starts nothing"},
	{"render", "net", "render is pure: it makes no connection"},
	{"reload/internal/plan", "os", "planning is pure: texts in, commands out"},
	{"reload/internal/plan", "context", "planning waits for nothing"},
	{"internal/catalog", "time", "the contract keeps no clock"},
	{"templates", "os", "the shipped templates are embedded"},
}

// forbidden lists packages that a package must not link, directly or through others.
var forbidden = []struct{ from, dep, why string }{
	{"internal/catalog", "log/slog", "the contract has no side effects"},
	{"internal/catalog", "net/http", "the contract does no I/O"},
	{"internal/haproxy", "nuncio/internal/catalog", "HAProxy's facts must not depend on nuncio's records"},
	{"internal/etcd", "nuncio/internal/catalog", "how to reach the store must not depend on what is in it"},
	{"templates", "nuncio/internal/catalog", "text depends on nothing"},
	{"render", "go.etcd.io/etcd/client/v3", "render is pure: records may come from a file"},
	{"reload", "go.etcd.io/etcd/client/v3", "applying must not care where the files come from"},
	{"reload", "nuncio/internal/catalog", "reload sees files, not records"},
	{"reload", "text/template", "reload sees files, not templates"},
	{"reload/internal/plan", "nuncio/reload/internal/process", "planning must not know how commands are sent"},
	{"reload/internal/generation", "nuncio/reload/internal/process", "files on disk need no process"},
	{"reload/internal/process", "nuncio/reload/internal/generation", "a process loads whatever files it is given"},
	{"watch", "nuncio/internal/haproxy", "watching must not know who uses the snapshot"},
	{"cmd/nuncio-registrar", "go.etcd.io/etcd/server/v3/embed", "a registrar on every host must stay small"},
	{"cmd/nuncio-registrar", "nuncio/internal/haproxy", "the registrar serves any consumer of records"},
	{"cmd/nuncio", "github.com/docker/docker/client", "the proxy's container needs no Docker socket"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsGoDownOnly(t *testing.T) {
	layerOf := map[string]int{}
	for layer, packages := range layers {
		for name := range packages {
			layerOf["nuncio/"+name] = layer
		}
	}
	packages := list(t)
	for name := range layerOf {
		find(t, packages, strings.TrimPrefix(name, "nuncio/"))
	}
	for _, p := range packages {
		if p.ImportPath == "nuncio/internal/testkit" || strings.HasPrefix(p.ImportPath, "nuncio/internal/testkit/") {
			continue
		}
		mine, known := layerOf[p.ImportPath]
		if !known && strings.Contains(strings.TrimPrefix(p.ImportPath, "nuncio/internal/"), "/internal/") {
			continue // the compiler lets only its parent import it
		}
		if !known {
			t.Errorf("package %s is in no layer: add it to this test and to docs/architecture.md, or put its code into a package that exists", p.ImportPath)
			continue
		}
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, "nuncio/internal/testkit") {
				t.Errorf("%s imports %s: only tests may", p.ImportPath, dep)
			}
			if theirs, ours := layerOf[dep]; ours && theirs >= mine && !strings.HasPrefix(p.ImportPath, dep+"/") {
				t.Errorf("%s (layer %d) imports %s (layer %d): imports go down only", p.ImportPath, mine, dep, theirs)
			}
		}
	}
	for _, rule := range notImported {
		if p := find(t, packages, rule.from); slices.Contains(p.Imports, rule.pkg) {
			t.Errorf("%s imports %s: %s", rule.from, rule.pkg, rule.why)
		}
	}
	for _, rule := range forbidden {
		if p := find(t, packages, rule.from); slices.Contains(p.Deps, rule.dep) {
			t.Errorf("%s depends on %s: %s", rule.from, rule.dep, rule.why)
		}
	}
}

// find returns a package. It fails the test if there is none: a rule about it would never be broken.
func find(t *testing.T, packages []listed, name string) listed {
	t.Helper()
	i := slices.IndexFunc(packages, func(p listed) bool { return p.ImportPath == "nuncio/"+name })
	if i < 0 {
		t.Fatalf("layers or a rule names package %s, which does not exist", name)
	}
	return packages[i]
}

func TestEachPackageHasOneDocComment(t *testing.T) {
	docs := map[string][]string{}
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Dir(file)
		if f.Doc != nil {
			docs[dir] = append(docs[dir], file)
		} else if _, seen := docs[dir]; !seen {
			docs[dir] = nil
		}
	}
	for dir, files := range docs {
		if len(files) != 1 {
			t.Errorf("%s has %d package comments %q, want exactly one", dir, len(files), files)
		}
	}
}

func TestFilesAndFunctionsStaySmall(t *testing.T) {
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n := fset.File(f.Pos()).LineCount(); n > 450 {
			t.Errorf("%s has %d lines, want at most 450: split it by job", file, n)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			if n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line; n > 70 {
				t.Errorf("%s: %s has %d lines, want it to fit a screen", fset.Position(fn.Pos()), fn.Name.Name, n)
			}
			if fn.Name.Name == "init" && fn.Recv == nil {
				t.Errorf("%s: init runs before main can decide anything", fset.Position(fn.Pos()))
			}
		}
	}
}

func TestGoModHasNoReplace(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testkit.Root(), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(text))
	for s.Scan() {
		if strings.HasPrefix(strings.TrimSpace(s.Text()), "replace") {
			t.Errorf("go.mod: %s: a replaced module is not what its users get", s.Text())
		}
	}
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps=false", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = testkit.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []listed
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(testkit.Root(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "build" || strings.HasPrefix(d.Name(), ".")) && path != testkit.Root() {
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
