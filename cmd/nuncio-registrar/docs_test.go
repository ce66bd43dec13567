package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/testkit"
	"nuncio/register"
)

var update = flag.Bool("update", false, "write the generated reference again")

// TestGoldenReference keeps the flags in docs/registrar.md equal to what the program says of itself.
func TestGoldenReference(t *testing.T) {
	var c grammar
	parser, err := kong.New(&c, kong.Name("nuncio-registrar"), kong.DefaultEnvars(envPrefix))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("\n| command | does |\n| --- | --- |\n")
	commands := map[string][]string{} // by row
	var rows []string
	for _, command := range parser.Model.Children {
		if command.Hidden {
			continue
		}
		words := []string{command.Name}
		for _, p := range command.Positional {
			words = append(words, strings.ToUpper(p.Name))
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", strings.Join(words, " "), command.Help)
		for _, f := range command.Flags {
			if f.Name == "help" || f.Name == "version" {
				continue
			}
			name, def := "--"+f.Name, f.Default
			if !f.IsBool() {
				name += "=" + strings.ReplaceAll(f.FormatPlaceHolder(), "|", "\\|")
			}
			if def != "" {
				def = "`" + def + "`"
			}
			row := fmt.Sprintf("| `%s` | `%s` | %s | %s |", name, strings.Join(f.Envs, "`, `"), def, f.Help)
			if commands[row] == nil {
				rows = append(rows, row)
			}
			commands[row] = append(commands[row], command.Name)
		}
	}
	b.WriteString("\n| flag | variable | default | meaning | commands |\n| --- | --- | --- | --- | --- |\n")
	slices.Sort(rows)
	for _, row := range rows {
		fmt.Fprintf(&b, "%s %s |\n", row, strings.Join(commands[row], ", "))
	}
	b.WriteString("\n")
	golden(t, "reference", b.String())
}

// TestGoldenMetrics keeps the metrics in docs/registrar.md equal to what the program has.
func TestGoldenMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	register.NewMetrics(registry)
	golden(t, "metrics", testkit.MetricTable(t, testkit.MetricHelp(t, registry)))
}

// golden compares a part of docs/registrar.md, which stands between two marks, with what it should be.
func golden(t *testing.T, part, want string) {
	t.Helper()
	begins, ends := "<!-- "+part+": made by make golden -->\n", "<!-- end of "+part+" -->\n"
	path := filepath.Join(testkit.Root(), "docs/registrar.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begins)
	have, after, closed := strings.Cut(rest, ends)
	if !ok || !closed {
		t.Fatalf("docs/registrar.md lacks the marks around its %s", part)
	}
	if *update {
		if err := os.WriteFile(path, []byte(before+begins+want+ends+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Errorf("the %s in docs/registrar.md is not what the program says (make golden writes it again; -want +got):\n%s", part, diff)
	}
}

// TestExitCodesAreDocumented keeps the table in docs/registrar.md equal to exit.go.
func TestExitCodesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testkit.Root(), "docs/registrar.md"))
	if err != nil {
		t.Fatal(err)
	}
	for code := exitOK; code <= exitClaimed; code++ {
		if !strings.Contains(string(text), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("docs/registrar.md has no row for exit code %d", code)
		}
	}
}
