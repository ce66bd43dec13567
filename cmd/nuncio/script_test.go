package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"nuncio": main,
		// A comparison with etcd would make up for a lost event before a test can see it.
		"nuncio-that-only-watches": func() {
			c := &grammar{}
			c.Run.compare = 1000 * time.Hour
			os.Exit(c.main(os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr))
		},
		"fill-etcd": fillEtcd,
	})
}

// fillEtcd is a command of scripts: ENDPOINT INSTANCE ADDRESS N. It writes a record and then N megabytes of other keys,
// or as many as the store takes.
func fillEtcd() {
	client, err := etcd.Dial(etcd.Config{Endpoints: []string{os.Args[1]}}, nil)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := client.Put(ctx, "/services/"+os.Args[2], os.Args[3]); err != nil {
		panic(err)
	}
	n, _ := strconv.Atoi(os.Args[4]) // the scripts give numbers
	for i := range n {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, err := client.Put(ctx, "/fill", strings.Repeat(string(rune('a'+i%26)), 1<<20))
		cancel()
		if err != nil {
			return
		}
	}
}

// TestDaemon runs "nuncio run" with a real etcd and a real HAProxy. The scripts named here depend on HAProxy's version.
func TestDaemon(t *testing.T) {
	t.Parallel()
	testkit.RunScripts(t, "testdata/daemon",
		"bind-conflict", "endpoints", "follow-services", "haproxy-killed", "templates-edit", "terminate", "upgrade")
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
