package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestDocsNameExistingTests fails if docs/reliability.md or docs/security.md names a test that does not exist, if a row of
// the table of faults has no test, or if a script of testdata/faults has no row.
func TestDocsNameExistingTests(t *testing.T) {
	var source strings.Builder
	err := filepath.WalkDir(testkit.Root(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == "build" {
			return filepath.SkipDir
		}
		if strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(path)
			source.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+|(?:[a-z]+/)?[a-z]+(?:-[a-z0-9]+)+)`")
	exists := func(name string) bool {
		if strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Fuzz") {
			return strings.Contains(source.String(), "\nfunc "+name+"(")
		}
		if !strings.Contains(name, "/") {
			name = "faults/" + name
		}
		_, err := os.Stat(filepath.Join("testdata", name+".txtar"))
		return err == nil
	}
	named, rows := map[string]bool{}, 0
	for _, file := range []string{"reliability.md", "security.md"} {
		text, err := os.ReadFile(filepath.Join(testkit.Root(), "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			isRow := file == "reliability.md" && len(cells) == 6 && !strings.Contains(line, "---") && !strings.Contains(line, "| draining |")
			found := 0
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				isTest := strings.HasPrefix(m[1], "Test") || strings.HasPrefix(m[1], "Fuzz") || strings.Contains(m[1], "/") || isRow && strings.Contains(cells[5], m[0])
				if !isTest {
					continue
				}
				found++
				if named[m[1]] = true; !exists(m[1]) {
					t.Errorf("docs/%s names the test %s, which does not exist: %s", file, m[1], line)
				}
			}
			if isRow {
				if rows++; found == 0 {
					t.Errorf("docs/%s has a row without a test: %s", file, line)
				}
			}
		}
	}
	scripts, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(scripts) == 0 || rows < 15 {
		t.Fatalf("%d scripts, %d rows: %v", len(scripts), rows, err)
	}
	for _, script := range scripts {
		if name := strings.TrimSuffix(filepath.Base(script), ".txtar"); !named[name] {
			t.Errorf("no row of docs/reliability.md names %s", script)
		}
	}
}
