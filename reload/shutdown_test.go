package reload_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

// unconfirmed is a haproxy whose master listens under a different name than nuncio expects. So it serves and nuncio cannot
// know, as between a start and its confirmation. confirm gives the socket its name.
func unconfirmed(t *testing.T, h testkit.HAProxy) (wrapped testkit.HAProxy, dir string, confirm func()) {
	t.Helper()
	dir = stateDir(t)
	script := filepath.Join(dir, "haproxy.sh")
	text := fmt.Sprintf(`#!/bin/sh
for a; do
	shift
	case $a in */master.sock,*) a=${a%%%%master.sock,*}hidden.sock,${a#*master.sock,} ;; esac
	set -- "$@" "$a"
done
exec %s "$@"
`, h.Path)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil { // it is executed
		t.Fatal(err)
	}
	h.Path = script
	return h, dir, func() {
		if err := os.Symlink("hidden.sock", filepath.Join(dir, "run", "master.sock")); err != nil {
			t.Error(err)
		}
	}
}

// A request that a haproxy took before its start was confirmed is a request under way like any other.
func TestStopWhileHAProxyStartsDrains(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		settle time.Duration
		shown  bool // the start is confirmed after the stop
		now    bool // the request does not end, and StopNow cuts it
	}{
		{name: "confirmed while it is waited for", settle: time.Hour, shown: true},
		{name: "never confirmed", settle: 10 * time.Millisecond},
		{name: "StopNow", settle: time.Hour, now: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
				t.Parallel()
				backend, arrived, answer := slow(t)
				addr := testkit.FreeAddr(t)
				h, dir, confirm := unconfirmed(t, h)
				r := start(t, h, reload.Options{StateDir: dir, DrainTimeout: time.Hour, ShutdownGrace: c.settle})
				r.submit(proxy(addr, backend), 1)
				testkit.Eventually(t, 30*time.Second, func() error {
					conn, err := net.Dial("tcp", addr)
					if err != nil {
						return err
					}
					return conn.Close()
				})
				body, failed := make(chan string, 1), make(chan error, 1)
				go func() {
					b, err := get(addr)
					body <- b
					failed <- err
				}()
				<-arrived
				r.stop()
				if c.shown {
					confirm()
				}
				if c.now {
					r.StopNow()
				} else {
					r.until("draining", func(s reload.Status) bool { return s.State == reload.Draining })
					close(answer)
				}
				if err := r.wait(); err != nil {
					t.Errorf("Run: %v", err)
				}
				got, err := <-body, <-failed
				if c.now != (err != nil) || !c.now && got != "late" {
					t.Errorf("the request under way: %q, %v", got, err)
				}
				if n := r.log.count("draining: no new connections"); n != 1 {
					t.Errorf("the drain is logged %d times", n)
				}
				if conn, err := net.Dial("tcp", addr); err == nil {
					conn.Close()
					t.Error("haproxy outlives Run")
				}
			})
		})
	}
}
