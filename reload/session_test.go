package reload_test

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// lasting opens a session and returns what exchanges a message on it.
func lasting(t *testing.T, addr string) (c *lineConn, say func(string)) {
	t.Helper()
	c, err := dialLines(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, func(what string) {
		t.Helper()
		if err := c.echo(what); err != nil {
			t.Fatal(err)
		}
	}
}

func tcpPool(addr, global string, servers ...string) haproxy.Files {
	return cfg(global + "defaults\n mode tcp\n timeout client 1m\n timeout server 1m\n timeout connect 100ms\n retries 0\nlisten l\n bind " + addr +
		"\n server " + strings.Join(servers, "\n server ") + "\n")
}

func TestLongSessionsOutliveTheirServer(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, one, two := testkit.FreeAddr(t), echo(t), echo(t)
		r := start(t, h, reload.Options{})
		first := r.applied(tcpPool(addr, "", line("a", one, 1, "")), 1)
		c, say := lasting(t, addr)
		say("one")
		other := line("b", two, 2, "")
		for i, servers := range [][]string{
			{line("a", one, 1, "weight 0"), other, line("unused", two, 3, "")}, {line("a", two, 1, "disabled"), other, line("unused", two, 3, "")}, {other},
		} {
			if s := r.applied(tcpPool(addr, "", servers...), int64(i+2)); s.WorkerPid != first.WorkerPid {
				t.Errorf("change %d: %+v", i, last(s))
			}
			say(fmt.Sprint("still ", i))
		}
		// Both leave, and an attempt to delete them takes the one that is not in use. It must not cut the session at the other.
		r.until("one server left to delete", func(s reload.Status) bool { return s.Leaving == 1 })
		say("and now")
		if r.log.count("servers that have left") > 0 {
			t.Error("an attempt to delete a server that is in use is nothing to warn of")
		}
		c.Close()
		r.until("no server leaving", func(s reload.Status) bool { return s.Leaving == 0 })
	})
}

// A reload leaves a session with the worker that took it, for as long as the configuration allows and no longer.
func TestLongSessionsOutliveAReloadUntilTheirDrainTime(t *testing.T) {
	t.Parallel()
	const drain = 2 * time.Second
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr, server := testkit.FreeAddr(t), line("a", echo(t), 1, "")
		r := start(t, h, reload.Options{})
		global := fmt.Sprintf("global\n hard-stop-after %v\n", drain)
		first := r.applied(tcpPool(addr, global, server), 1)
		c, say := lasting(t, addr)
		say("one")
		began := time.Now()
		if s := r.applied(tcpPool(addr, global+" maxconn 100\n", server), 2); s.WorkerPid == first.WorkerPid {
			t.Fatalf("no reload: %+v", last(s))
		}
		for c.echo("still") == nil {
			if time.Since(began) > 30*drain {
				t.Fatal("the session outlives its drain time")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if lived := time.Since(began); lived < drain {
			t.Errorf("the session was cut %v after the reload began, before its drain time of %v", lived, drain)
		}
	})
}

// HAProxy 3.3 and later cut the sessions of a worker at the 51st reload, unless they are told otherwise. An operator's own line
// tells them more.
func TestASessionOutlivesAnyNumberOfReloads(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		if !h.AtLeast("3.3") {
			t.Skip("no limit by default")
		}
		for _, c := range []struct {
			line    string
			reloads int
			lives   bool
		}{{"", 60, true}, {"mworker-max-reloads 2", 4, false}} {
			addr, server := testkit.FreeAddr(t), backend(t)
			conf := func(turn int) haproxy.Files {
				return cfg("global\n" + c.line + "\n" + head + "listen l\n bind " + addr + "\n timeout tunnel 1h\n http-response set-header x-turn " + fmt.Sprint(turn) + "\n server s " + server + "\n")
			}
			r := start(t, h, reload.Options{})
			r.applied(conf(0), 1)
			conn, err := dialLines(addr)
			if err == nil {
				err = conn.upgrade(websocket)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			for turn := range c.reloads {
				if a := last(r.applied(conf(turn+1), int64(turn+2))); a.Mode != reload.ModeReload {
					t.Fatalf("%+v", a)
				}
			}
			if !c.lives {
				_ = conn.SetReadDeadline(time.Now().Add(clientTimeout))
				if _, err := conn.in.ReadByte(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("%s: after %d reloads the session is not cut: %v", c.line, c.reloads, err)
				}
				continue
			}
			if err := conn.echo("still here"); err != nil {
				t.Errorf("after %d reloads: %v", c.reloads, err)
			}
		}
	})
}
