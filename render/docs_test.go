package render_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/testkit"
	"nuncio/render"
)

// The page for operators lists the functions that there are; -update writes the list.
func TestDocumentationListsTheFunctions(t *testing.T) {
	path := filepath.Join(testkit.Root(), "docs/templates.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- sprig: begin (checked by a test) -->\n", "<!-- sprig: end -->"
	before, rest, ok1 := strings.Cut(string(page), begin)
	listed, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatal("the page has lost its marks")
	}
	var want strings.Builder
	line := 0
	for _, name := range render.FromSprig() {
		if line += len(name) + 3; line > 100 {
			want.WriteString("\n")
			line = len(name) + 3
		}
		want.WriteString("`" + name + "` ")
	}
	want.WriteString("\n")
	text := strings.ReplaceAll(want.String(), " \n", "\n")
	if *update {
		if err := os.WriteFile(path, []byte(before+begin+text+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(text, listed); diff != "" {
		t.Errorf("refresh with -update (-want +page):\n%s", diff)
	}
	for name := range render.OwnFunctions() {
		if !regexp.MustCompile(`\b` + name + `\b`).Match(page) {
			t.Errorf("the page does not mention %s", name)
		}
	}
}
