package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
)

// pinned is a Gate before a real Manager with a real HAProxy.
type pinned struct {
	t       *testing.T
	dir     string
	manager *reload.Manager
	gate    *reconcile.Gate
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
	return &pinned{t: t, dir: dir, manager: m, gate: reconcile.NewGate(m, dir, nil, nil)}
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
	if _, err := p.gate.Resume(t.Context()); !errors.Is(err, reconcile.ErrNotPinned) {
		t.Errorf("Resume with nothing pinned: %v, want ErrNotPinned", err)
	}
	pin, err := p.gate.Pin(t.Context(), 0)
	if err != nil || pin.Digest != one.Digest() {
		t.Fatalf("Pin(0): %+v, %v; want the generation before the running one", pin, err)
	}
	p.wantRunning(one)
	p.submit(3, three, one)

	again := reconcile.NewGate(p.manager, p.dir, nil, nil)
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
			gate := reconcile.NewGate(newJudge(), dir, nil, nil)
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

// shelf is an applier that runs what it is given at once and, unless it is slow to save, stores it as a generation, as the
// real one does with every change: what an operator goes back to becomes the newest.
type shelf struct {
	*judgeApplier
	t       *testing.T
	dir     string
	unsaved bool
	ordered bool // the last thing it was given was an operator's order
	status  reload.Status
}

func (s *shelf) Submit(_ context.Context, d reload.Desired) error {
	s.ordered = d.Now
	s.status.AppliedDigest = d.Files.Digest()
	if !s.unsaved {
		s.status.AppliedGeneration++
		s.store(s.status.AppliedGeneration, d)
	}
	s.status.Applies = append(s.status.Applies, reload.Result{Time: time.Now(), Digest: d.Files.Digest(), Outcome: reload.Runtime})
	return nil
}

func (s *shelf) Status() reload.Status { return s.status }

func (s *shelf) store(number int64, d reload.Desired) {
	dir := filepath.Join(s.dir, "generations", fmt.Sprint(number))
	manifest, err := json.Marshal(reload.Generation{Number: number, Revision: d.Revision, Digest: d.Files.Digest()})
	err = errors.Join(err, os.MkdirAll(dir, 0o700), os.WriteFile(filepath.Join(dir, haproxy.ConfigFile), d.Files.Config(), 0o600),
		os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600))
	if err != nil {
		s.t.Fatal(err)
	}
}

// startShelf is a gate through which these pages have passed, each a generation.
func startShelf(t *testing.T, pages ...string) (*shelf, *reconcile.Gate) {
	t.Helper()
	s := &shelf{judgeApplier: newJudge(), t: t, dir: t.TempDir()}
	gate := reconcile.NewGate(s, s.dir, nil, nil)
	submitPages(t, gate, pages...)
	return s, gate
}

func submitPages(t *testing.T, gate *reconcile.Gate, pages ...string) {
	t.Helper()
	for _, page := range pages {
		if err := gate.Submit(t.Context(), reload.Desired{Files: config(t, page)}); err != nil {
			t.Fatal(err)
		}
	}
}

// wantBack goes back once and compares what is pinned then.
func wantBack(t *testing.T, what string, gate *reconcile.Gate, generation int64, page string) {
	t.Helper()
	pin, err := gate.Pin(t.Context(), 0)
	if err != nil || pin.Generation != generation || pin.Digest != config(t, page).Digest() {
		t.Errorf("%s: generation %d, %.8s, %v; want %d with page %s", what, pin.Generation, pin.Digest, err, generation, page)
	}
}

// A change by commands gets its number a moment later: until then the number that runs is that of the one before.
func TestARollbackBeforeTheChangeIsSavedGoesBackOneStep(t *testing.T) {
	s, gate := startShelf(t, "one", "two")
	s.unsaved = true
	submitPages(t, gate, "mistake")
	wantBack(t, "before the mistake is saved", gate, 2, "two")
}

func TestAnotherRollbackGoesBackFurther(t *testing.T) {
	s, gate := startShelf(t, "mistake", "one", "two", "one", "three", "mistake")
	wantBack(t, "first", gate, 5, "three")
	wantBack(t, "second", gate, 4, "one")
	again := reconcile.NewGate(s, s.dir, nil, nil)
	if err := again.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	submitPages(t, again, "mistake")
	wantBack(t, "third, after a restart", again, 3, "two")
	wantBack(t, "fourth", again, 2, "one")
	if pin, err := again.Pin(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "before generation 2, which is pinned") {
		t.Errorf("with nothing left but what is wanted: %+v, %v; want an error that says so", pin, err)
	}
	if got := again.Pinned(); got == nil || got.Generation != 2 {
		t.Errorf("after a rollback that there was nothing for: pinned %+v, want generation 2 still", got)
	}
	if _, err := again.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantBack(t, "after the end of the pin", again, s.status.AppliedGeneration-1, "one")
}

// What HAProxy has failed to load is held back, but not from an operator.
func TestARollbackAndItsEndAreOrders(t *testing.T) {
	s, gate := startShelf(t, "one", "two")
	if err := gate.Submit(t.Context(), reload.Desired{Files: config(t, "three"), Now: true}); err != nil || !s.ordered {
		t.Errorf("Submit of an order: handed over as one: %t, %v", s.ordered, err)
	}
	if _, err := gate.Pin(t.Context(), 1); err != nil || !s.ordered {
		t.Errorf("Pin: handed over as an order: %t, %v", s.ordered, err)
	}
	if wanted, _ := gate.Wanted(); wanted.Now {
		t.Error("what is kept is an order still")
	}
	if _, err := gate.Resume(t.Context()); err != nil || !s.ordered {
		t.Errorf("Resume: handed over as an order: %t, %v", s.ordered, err)
	}
}

func TestThereMayBeNothingToGoBackTo(t *testing.T) {
	_, gate := startShelf(t, "one")
	if pin, err := gate.Pin(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "no earlier generation") {
		t.Errorf("Pin(0) with one generation: %+v, %v; want an error that says that there is no earlier one", pin, err)
	}
}
