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

	"nuncio/testkit"
)

// The rooms of the house by floor. An import goes down only; rooms on one floor never import each other. A new
// room is added here and to docs/architecture.md, or the test fails.
var floors = []map[string]string{
	1: {
		"admin":         "it guards a listener, whatever is shown there",
		"catalog":       "it is the contract that both programs share",
		"haproxy":       "it holds facts of another program",
		"etcd":          "it opens connections and knows nothing of what is stored",
		"etcd/embedded": "it is a store, and the registrar must not link one",
		"flags":         "it reads command lines, whichever commands they name",
		"proc":          "it starts and reaps processes, whichever they are",
		"templates":     "it is text",
	},
	2: {
		"watch":    "it turns the store into snapshots",
		"render":   "it is pure: snapshot in, files out",
		"reload":   "it gets files into HAProxy, wherever they come from",
		"register": "it writes records, and never reads what the proxy does",
		"status":   "it shows what others publish",
		"control":  "it carries words between an operator and a nuncio, whatever they mean",
	},
	3: {
		"follow": "it decides what is wanted, and not how anything is done",
	},
	4: {
		"cmd/nuncio":           "it wires",
		"cmd/nuncio-registrar": "it wires",
		"deploy":               "it is files, and the tests that run them",
	},
}

// Not to be imported by the room's own files; what its libraries link is their affair.
var notImported = []struct{ room, pkg, why string }{
	{"render", "os", "render is pure: texts in, files out"},
	{"render", "os/exec", "render is pure: it starts nothing"},
	{"render", "net", "render is pure: it asks nobody"},
	{"catalog", "time", "the contract keeps no clock"},
	{"templates", "os", "the shipped templates are embedded"},
}

// Forbidden beyond the floors: a package that must not be linked, directly or through others.
var forbidden = []struct{ room, dep, why string }{
	{"catalog", "log/slog", "the contract has no side effects"},
	{"catalog", "net/http", "the contract does no I/O"},
	{"haproxy", "nuncio/catalog", "HAProxy's facts must not depend on nuncio's records"},
	{"etcd", "nuncio/catalog", "how to reach the store must not depend on what is in it"},
	{"templates", "nuncio/catalog", "text depends on nothing"},
	{"render", "go.etcd.io/etcd/client/v3", "render is pure: records may come from a file"},
	{"reload", "go.etcd.io/etcd/client/v3", "applying must not care where the files come from"},
	{"reload", "nuncio/catalog", "reload sees files, not records"},
	{"reload", "text/template", "reload sees files, not templates"},
	{"watch", "nuncio/haproxy", "watching must not know who uses the snapshot"},
	{"cmd/nuncio-registrar", "go.etcd.io/etcd/server/v3/embed", "a registrar on every host must stay small"},
	{"cmd/nuncio-registrar", "nuncio/haproxy", "the registrar serves any consumer of records"},
	{"cmd/nuncio", "github.com/docker/docker/client", "the proxy's container needs no Docker socket"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func TestImportsGoDownOnly(t *testing.T) {
	floorOf := map[string]int{}
	for floor, rooms := range floors {
		for room := range rooms {
			floorOf["nuncio/"+room] = floor
		}
	}
	packages := list(t)
	for _, p := range packages {
		if p.ImportPath == "nuncio/testkit" || strings.HasPrefix(p.ImportPath, "nuncio/testkit/") {
			continue
		}
		room, inner, _ := strings.Cut(p.ImportPath, "/internal/")
		if inner != "" {
			continue // Go lets nobody but its own room import it
		}
		mine, known := floorOf[room]
		if !known {
			t.Errorf("package %s stands on no floor: give it one in this test and in docs/architecture.md, or put the code into a room that exists", p.ImportPath)
			continue
		}
		for _, dep := range p.Imports {
			if strings.HasPrefix(dep, "nuncio/testkit") {
				t.Errorf("%s imports %s: only tests may", p.ImportPath, dep)
			}
			if theirs, ours := floorOf[dep]; ours && theirs >= mine && !strings.HasPrefix(p.ImportPath, dep+"/") {
				t.Errorf("%s (floor %d) imports %s (floor %d): imports go down only", p.ImportPath, mine, dep, theirs)
			}
		}
	}
	for _, rule := range notImported {
		i := slices.IndexFunc(packages, func(p listed) bool { return p.ImportPath == "nuncio/"+rule.room })
		if i >= 0 && slices.Contains(packages[i].Imports, rule.pkg) {
			t.Errorf("%s imports %s: %s", rule.room, rule.pkg, rule.why)
		}
	}
	for _, rule := range forbidden {
		i := slices.IndexFunc(packages, func(p listed) bool { return p.ImportPath == "nuncio/"+rule.room })
		if i >= 0 && slices.Contains(packages[i].Deps, rule.dep) {
			t.Errorf("%s depends on %s: %s", rule.room, rule.dep, rule.why)
		}
	}
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

func TestFilesAndFunctionsFitTheHouse(t *testing.T) {
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
			t.Errorf("%s has %d lines: is there a room hidden in it?", file, n)
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
