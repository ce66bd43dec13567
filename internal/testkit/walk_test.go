package testkit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestWalkThroughNamesCodeThatExists checks the walk in docs/architecture.md against the code. In backticks each of its
// paragraphs names files (`watch/store.go`) and functions or methods that one of them declares (`Store.Run()`).
func TestWalkThroughNamesCodeThatExists(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testkit.Root(), "docs/architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, walk, found := strings.Cut(string(page), "\n## A walk through the code\n")
	if !found {
		t.Fatal("docs/architecture.md has no walk through the code")
	}
	walk, _, _ = strings.Cut(walk, "\n## ")
	files := regexp.MustCompile("`([a-z][a-z0-9/_-]*\\.go)`")
	functions := regexp.MustCompile("`([A-Za-z][A-Za-z0-9.]*)\\(\\)`")
	checked := 0
	for _, paragraph := range regexp.MustCompile(`\n\n|\n\d+\. `).Split(walk, -1) {
		declared := map[string]bool{}
		for _, m := range files.FindAllStringSubmatch(paragraph, -1) {
			maps.Copy(declared, declaredIn(t, m[1]))
		}
		for _, m := range functions.FindAllStringSubmatch(paragraph, -1) {
			if checked++; !declared[m[1]] {
				t.Errorf("%s() is in none of the files that its paragraph names: %.80s ...", m[1], paragraph)
			}
		}
	}
	if checked < 20 {
		t.Errorf("the walk names %d functions: has its form changed?", checked)
	}
}

// declaredIn returns the functions of a file, and its methods as Type.Method.
func declaredIn(t *testing.T, path string) map[string]bool {
	t.Helper()
	declared := map[string]bool{}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(testkit.Root(), path), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Errorf("the walk names a file that cannot be read: %v", err)
		return declared
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := fn.Name.Name
		if fn.Recv != nil {
			receiver := fn.Recv.List[0].Type
			if pointer, ok := receiver.(*ast.StarExpr); ok {
				receiver = pointer.X
			}
			if ident, ok := receiver.(*ast.Ident); ok {
				name = ident.Name + "." + name
			}
		}
		declared[name] = true
	}
	return declared
}
