package main

import (
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nuncio/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nuncio": func() { os.Exit(Main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr)) },
		// The periodic listing would make up for a lost event before a test can see it.
		"nuncio-that-only-watches": func() {
			c := &grammar{}
			c.Run.relist = 1000 * time.Hour
			os.Exit(c.main(os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
		},
	})
}

// TestDaemon runs "nuncio run" with a real etcd and a real HAProxy. The scripts named here depend on HAProxy's version.
func TestDaemon(t *testing.T) {
	t.Parallel()
	testkit.RunScripts(t, "testdata/daemon",
		"bind-conflict", "burst", "endpoints", "haproxy-killed", "pid1", "ready", "templates-edit", "terminate")
}

// TestFaults breaks what nuncio depends on, one thing per script; docs/reliability.md has the table.
func TestFaults(t *testing.T) {
	t.Parallel()
	testkit.RunScripts(t, "testdata/faults")
}

// TestCommands runs the commands that end by themselves.
func TestCommands(t *testing.T) {
	t.Parallel()
	testkit.RunScripts(t, "testdata/commands")
}
