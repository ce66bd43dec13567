package process_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload/internal/process"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// launch starts a haproxy with one frontend that answers with body, and a function that changes the body on disk.
func launch(t *testing.T, h testkit.HAProxy) (p *process.Process, write func(body string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nr") // a socket's path has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	addr := testkit.FreeAddr(t)
	own, main := filepath.Join(dir, "nuncio.cfg"), filepath.Join(dir, "haproxy.cfg")
	write = func(body string) {
		t.Helper()
		text := fmt.Sprintf("defaults\n mode http\n timeout client 1s\nfrontend f\n bind %s\n http-request return status 200 content-type text/plain string %s\n", addr, body)
		if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	if err := os.WriteFile(own, process.OwnConfig(dir), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = process.Launch(process.Options{
		Program: h.Path, Env: process.Environment(os.Environ()), RunDir: dir, Configs: []string{own, main},
		ReloadTimeout: 30 * time.Second, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Terminate()
		<-p.Done()
		p.KillWorkers()
	})
	if err := p.Confirm(t.Context()); err != nil {
		t.Fatal(err)
	}
	return p, write
}

func TestReloadReturnsOnceANewWorkerServes(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		p, write := launch(t, h)
		first := p.Worker()
		write("two")
		if err := p.Reload(t.Context()); err != nil || p.Worker() == first {
			t.Errorf("worker %d after %d, %v", p.Worker(), first, err)
		}
		s, err := p.Session(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		write("three frobnicate")
		second := p.Worker()
		if err := p.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "haproxy keeps its old configuration") || p.Worker() != second {
			t.Errorf("files that HAProxy cannot load: worker %d after %d, %v", p.Worker(), second, err)
		}
	})
}

// 3.2 and later say what a server may have that is added at run time; "track" is in no table.
func TestKeywordsAreThoseThatHAProxyLists(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		p, _ := launch(t, h)
		version, err := haproxy.ParseVersion([]byte("HAProxy version " + h.Version + ".0"))
		if err != nil {
			t.Fatal(err)
		}
		words := p.Keywords(t.Context(), haproxy.KeywordsOf(version))
		if listed := h.Version != "2.6" && h.Version != "3.0"; words["track"].Dynamic != listed || !words["weight"].Dynamic {
			t.Errorf("track %v, weight %v", words["track"], words["weight"])
		}
	})
}

func TestADrainEndsHAProxy(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		p, _ := launch(t, h)
		p.Drain()
		for ended := false; !ended; {
			select {
			case <-p.Done():
				ended = true
			case <-time.After(time.Second):
				if p.IgnoredDrain() { // a signal in the first milliseconds has no effect
					p.Drain()
				}
			}
		}
		if end := p.ExitError(); end.Code != 0 {
			t.Error(end)
		}
	})
}
