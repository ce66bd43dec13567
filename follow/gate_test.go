package follow_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/follow"
	"nuncio/haproxy"
	"nuncio/reload"
	"nuncio/testkit"
)

// pinned is a Gate before a real Manager with a real HAProxy.
type pinned struct {
	t       *testing.T
	dir     string
	manager *reload.Manager
	gate    *follow.Gate
}

func startPinned(t *testing.T) *pinned {
	t.Helper()
	all := testkit.HAProxies(t)
	dir, err := os.MkdirTemp("", "n") // short: it holds unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m, err := reload.New(reload.Options{HAProxy: all[len(all)-1].Path, StateDir: dir, DrainTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended with %v", err)
		}
	})
	return &pinned{t: t, dir: dir, manager: m, gate: follow.NewGate(m, dir, nil, nil)}
}

func config(t *testing.T, page string, binds ...string) haproxy.Files {
	t.Helper()
	text := "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nfrontend f\n http-request return status 200 content-type text/plain string " + page + "\n"
	for _, b := range binds {
		text += " bind " + b + "\n"
	}
	files, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// submit hands files over and waits until HAProxy runs want.
func (p *pinned) submit(revision int64, files, want haproxy.Files) {
	p.t.Helper()
	if err := p.gate.Submit(p.t.Context(), reload.Desired{Files: files, Revision: revision}); err != nil {
		p.t.Fatal(err)
	}
	p.wantRunning(want)
}

func (p *pinned) wantRunning(want haproxy.Files) {
	p.t.Helper()
	testkit.Eventually(p.t, 30*time.Second, func() error {
		if s := p.manager.Status(); s.State != reload.Running || s.AppliedDigest != want.Digest() {
			return fmt.Errorf("state %s, running %.8s, want %.8s: %s", s.State, s.AppliedDigest, want.Digest(), s.LastError)
		}
		return nil
	})
}

func TestAPinKeepsChangesBackUntilItIsResumed(t *testing.T) {
	p := startPinned(t)
	addr := testkit.FreeAddr(t)
	one, two, three := config(t, "one", addr), config(t, "two", addr), config(t, "three", addr)
	p.submit(1, one, one)
	p.submit(2, two, two)
	if _, err := p.gate.Resume(t.Context()); !errors.Is(err, follow.ErrNotPinned) {
		t.Errorf("Resume with nothing pinned: %v, want ErrNotPinned", err)
	}
	pin, err := p.gate.Pin(t.Context(), 0)
	if err != nil || pin.Digest != one.Digest() {
		t.Fatalf("Pin(0): %+v, %v; want the generation before the running one", pin, err)
	}
	p.wantRunning(one)
	p.submit(3, three, one)

	again := follow.NewGate(p.manager, p.dir, nil, nil)
	if err := again.Restore(t.Context()); err != nil || again.Pinned() == nil || again.Pinned().Digest != one.Digest() {
		t.Errorf("after a restart: pinned %+v, %v; want the same pin", again.Pinned(), err)
	}
	if _, err := p.gate.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.wantRunning(three)
}

func TestAPinThatHAProxyCannotRunChangesNothing(t *testing.T) {
	p := startPinned(t)
	addr, other := testkit.FreeAddr(t), testkit.FreeAddr(t)
	one, two := config(t, "one", addr, other), config(t, "two", addr)
	p.submit(1, one, one)
	p.submit(2, two, two)
	// HAProxy's old worker gives the address up a moment after the reload.
	var squatter net.Listener
	testkit.Eventually(t, 20*time.Second, func() (err error) {
		squatter, err = net.Listen("tcp", other)
		return err
	})
	defer squatter.Close()
	if _, err := p.gate.Pin(t.Context(), 1); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("Pin of a generation whose address is taken: %v, want an error that names %s", err, other)
	}
	if got := p.gate.Pinned(); got != nil {
		t.Errorf("pinned %+v, want nothing", got)
	}
	p.wantRunning(two)
	if _, err := p.gate.Pin(t.Context(), 77); err == nil || !strings.Contains(err.Error(), "no generation 77") {
		t.Errorf("Pin of a generation that there is not: %v", err)
	}
}

func TestAPinThatCannotBeRestoredIsDroppedAndSaid(t *testing.T) {
	for name, text := range map[string]string{
		"its generation is gone": `{"generation":7,"revision":7,"digest":"00"}`,
		"it cannot be read":      `{"generation":`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "pin.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			gate := follow.NewGate(newJudge(), dir, nil, nil)
			if err := gate.Restore(t.Context()); err == nil {
				t.Error("Restore: no error, want one that says what was dropped")
			}
			if gate.Pinned() != nil {
				t.Errorf("pinned %+v, want nothing", gate.Pinned())
			}
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the pin's file: %v, want it gone so that the next start says nothing", err)
			}
		})
	}
}
