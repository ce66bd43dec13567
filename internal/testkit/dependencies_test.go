package testkit_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestEachDependencyHasAReason compares the table under "Dependencies" in docs/decisions.md with the direct requirements
// of go.mod and with the packages that import them.
func TestEachDependencyHasAReason(t *testing.T) {
	rows := dependencyTable(t)
	modules := directModules(t)
	importers := importersOf(t, modules)
	for _, m := range modules {
		row, found := rows[m]
		switch {
		case !found:
			t.Errorf("docs/decisions.md has no reason for %s: add one, or drop the module; it is imported by %s", m, importers[m])
		case row.reason == "":
			t.Errorf("docs/decisions.md: the reason for %s is empty", m)
		case row.importers != importers[m]:
			t.Errorf("docs/decisions.md: %s is imported by %s, not by %s", m, importers[m], row.importers)
		}
		delete(rows, m)
	}
	for m := range rows {
		t.Errorf("docs/decisions.md lists %s, which go.mod does not require directly", m)
	}
}

type dependencyRow struct{ reason, importers string }

func dependencyTable(t *testing.T) map[string]dependencyRow {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testkit.Root(), "docs/decisions.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Dependencies\n")
	if !found {
		t.Fatal(`docs/decisions.md has no section "Dependencies"`)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]dependencyRow{}
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) == 5 && strings.HasPrefix(cells[1], " `") {
			rows[strings.Trim(cells[1], " `")] = dependencyRow{strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])}
		}
	}
	return rows
}

func directModules(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = testkit.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go mod edit: %v", err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var direct []string
	for _, r := range mod.Require {
		if !r.Indirect {
			direct = append(direct, r.Path)
		}
	}
	return direct
}

// importersOf returns for each module the packages whose own files import it, as the table writes them.
func importersOf(t *testing.T, modules []string) map[string]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = testkit.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	importers := map[string][]string{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(p.ImportPath, "nuncio/"), "/internal/") // reload/internal/plan is part of reload
		for _, m := range modules {
			if !slices.Contains(importers[m], name) && slices.ContainsFunc(p.Imports, func(i string) bool { return i == m || strings.HasPrefix(i, m+"/") }) {
				importers[m] = append(importers[m], name)
			}
		}
	}
	cells := map[string]string{}
	for _, m := range modules {
		cells[m] = cmp.Or(strings.Join(importers[m], ", "), "tests only")
	}
	return cells
}
