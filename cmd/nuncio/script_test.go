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

// TestDaemon runs "nuncio run" against real etcd and every supported HAProxy.
func TestDaemon(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, haproxy testkit.HAProxy) {
		testkit.RunScripts(t, "testdata/daemon", haproxy)
	})
}

// TestCommands runs the commands that end by themselves; what HAProxy they meet makes no difference to them.
func TestCommands(t *testing.T) {
	testkit.RunScripts(t, "testdata/commands", testkit.HAProxies(t)[0])
}
