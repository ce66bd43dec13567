package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"nuncio/internal/testkit"
)

var update = flag.Bool("update", false, "write the generated reference again")

// TestGoldenReference keeps docs/reference.md equal to the program's own help.
func TestGoldenReference(t *testing.T) {
	var c grammar
	parser, err := kong.New(&c, kong.Name("nuncio"), kong.DefaultEnvars("NUNCIO"))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Commands and flags of nuncio\n\nMade from the program by `make golden`; a test compares the two. Every flag may be given as the\nvariable beside it.\n")
	for _, command := range parser.Model.Children {
		if command.Hidden {
			continue
		}
		fmt.Fprintf(&b, "\n## nuncio %s\n\n%s\n", strings.TrimSpace(command.Name+" "+arguments(command)), command.Help)
		rows := 0
		for _, f := range command.Flags {
			if f.Name == "help" || f.Hidden {
				continue
			}
			if rows == 0 {
				b.WriteString("\n| flag | variable | default | meaning |\n| --- | --- | --- | --- |\n")
			}
			rows++
			fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s |\n", flagName(f), strings.Join(f.Envs, ", "), code(f.Default), f.Help)
		}
	}
	path := filepath.Join(testkit.Root(), "docs/reference.md")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.String(), string(have)); diff != "" {
		t.Errorf("docs/reference.md is not what the program says (make golden writes it again; -want +got):\n%s", diff)
	}
}

// TestExitCodesAreDocumented keeps the README's table equal to exit.go.
func TestExitCodesAreDocumented(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(testkit.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for code := exitOK; code <= exitRun; code++ {
		if !strings.Contains(string(readme), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("README.md has no row for exit code %d", code)
		}
	}
}

func arguments(n *kong.Node) string {
	var names []string
	for _, p := range n.Positional {
		names = append(names, strings.ToUpper(p.Name))
	}
	return strings.Join(names, " ")
}

func flagName(f *kong.Flag) string {
	if f.IsBool() {
		return "--" + f.Name
	}
	return "--" + f.Name + "=" + strings.ReplaceAll(f.FormatPlaceHolder(), "|", "\\|")
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// TestConfdPageIsRunAsWritten: the script confd-move runs each command of docs/confd.md, in the page's order.
func TestConfdPageIsRunAsWritten(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testkit.Root(), "docs/confd.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/daemon/confd-move.txtar")
	if err != nil {
		t.Fatal(err)
	}
	_, move, _ := strings.Cut(string(page), "\n## The move\n")
	rest, commands := string(script), 0
	for line := range strings.Lines(move) {
		command := strings.ReplaceAll(strings.TrimSpace(line), "/etc/", "etc/")
		if !strings.HasPrefix(line, "       ") || !strings.HasPrefix(command, "nuncio ") {
			continue
		}
		commands++
		_, after, found := strings.Cut(rest, " "+command)
		if !found {
			t.Fatalf("the script does not run this command of the page, or not in its order: %s", command)
		}
		rest = after
	}
	if commands != 5 {
		t.Errorf("the move has %d commands, want 5", commands)
	}
}
