package testkit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestMakeListsEveryTarget compares what "make" alone prints with the rules of the Makefile.
func TestMakeListsEveryTarget(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(testkit.Root(), "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", "--no-print-directory")
	cmd.Dir = testkit.Root()
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKEOVERRIDES=", "MFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make: %v\n%s", err, out)
	}
	targets := names(`(?m)^([a-z-]+):(?:[^=]|$)`, string(text))
	if phony := names(`(?m)^\.PHONY: ([a-z-]+)$`, string(text)); !slices.Equal(phony, targets) {
		t.Errorf(".PHONY has %q, the rules are %q", phony, targets)
	}
	if listed := names(`(?m)^  make ([a-z-]+) +\S`, string(out)); !slices.Equal(listed, targets) || len(targets) == 0 {
		t.Errorf("make lists %q, the rules are %q", listed, targets)
	}
}

func names(pattern, text string) (found []string) {
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

// TestNolintNamesEnabledLinters: nolintlint does not report a comment for a linter that never runs.
func TestNolintNamesEnabledLinters(t *testing.T) {
	config, err := os.ReadFile(filepath.Join(testkit.Root(), ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	enabled := names(`(?m)^    - ([a-z]+)$`, string(config))
	for _, file := range goFiles(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, list := range names(`//nolint:([a-z,]+)`, string(text)) {
			for name := range strings.SplitSeq(list, ",") {
				if !slices.Contains(enabled, name) {
					t.Errorf("%s: nolint for %s, which .golangci.yml does not enable", file, name)
				}
			}
		}
	}
}

func TestScriptsAreValidShell(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testkit.Root(), "scripts/*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		if out, err := exec.Command("bash", "-n", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", file, err, out)
		}
	}
}
