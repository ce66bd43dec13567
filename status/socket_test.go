package status_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/status"
)

// startSocket runs a Server where a killed nuncio has left its socket behind.
func startSocket(t *testing.T) (path string, stop func()) {
	t.Helper()
	path = socketPath(t)
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	return path, runSocket(t, newEnv(t, nil).Server, path)
}

// socketPath returns a path that is short enough for a socket.
func socketPath(t *testing.T) string { return filepath.Join(socketDir(t), "nuncio.sock") }

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// runSocket runs server until the test ends or stop is called, and returns once it answers.
func runSocket(t *testing.T, server *status.Server, path string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.RunSocket(ctx, path) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("RunSocket: %v", err)
		}
	})
	t.Cleanup(stop)
	testkit.Eventually(t, 10*time.Second, func() error {
		c, err := net.Dial("unix", path)
		if err == nil {
			c.Close()
		}
		return err
	})
	return stop
}

func TestAskAndTell(t *testing.T) {
	path, stop := startSocket(t)
	c := status.NewClient(path)
	var state struct{ State string }
	if err := c.Get(t.Context(), "/v1/status", &state); err != nil || state.State != "running" {
		t.Errorf("Get: %+v, %v, want running", state, err)
	}
	var set reconcile.TemplateSet
	if err := c.Do(t.Context(), status.OrderRollback, url.Values{status.ArgumentRollback: {"7"}}, &set); err != nil || set.Number != 7 {
		t.Errorf("Do: %+v, %v, want template set 7", set, err)
	}
	var frozen reconcile.Frozen
	if err := c.Do(t.Context(), status.OrderFreeze, nil, &frozen); err != nil || frozen.Generation != 0 {
		t.Errorf("Do without an argument: %+v, %v, want 0", frozen, err)
	}
	var held bool
	if err := c.Do(t.Context(), status.OrderAccept, nil, &held); err != nil || !held {
		t.Errorf("Do: %v, %v, want that something was held", held, err)
	}
	if files, err := c.DesiredFiles(t.Context()); err != nil || !strings.Contains(string(files.Config()), "hunter2") {
		t.Errorf("DesiredFiles: %v, want the files as they are", err)
	}
	var resumed reconcile.Resumed
	var no *status.RefusedError
	if err := c.Do(t.Context(), status.OrderResume, nil, &resumed); !errors.As(err, &no) || no.Message != reconcile.ErrNothingToResume.Error() {
		t.Errorf("Do of an order that is refused: %v, want its own words", err)
	}
	if err := c.Do(t.Context(), status.OrderFreeze, url.Values{status.ArgumentFreeze: {"x"}}, &frozen); !errors.As(err, &no) || !strings.Contains(no.Message, `generation "x"`) {
		t.Errorf("Do with a bad argument: %v, want it named", err)
	}
	if err := c.Do(t.Context(), "nosuch", nil, &held); !errors.As(err, &no) || !strings.Contains(no.Message, `"nosuch"`) {
		t.Errorf("Do of an unknown order: %v, want its name", err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v, want mode 0600", info, err)
	}
	stop()
	if err := c.Get(t.Context(), "/v1/status", &state); !errors.Is(err, status.ErrUnreachable) {
		t.Errorf("Get after the end: %v, want ErrUnreachable", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// TestAnOrderOutlivesItsTerminal interrupts the client, as Ctrl-C does, while its order is being carried out.
func TestAnOrderOutlivesItsTerminal(t *testing.T) {
	taken, goOn, outcome := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	e := newEnv(t, nil)
	e.change(func(s *sources) {
		s.rollback = func(ctx context.Context) error {
			close(taken)
			select {
			case <-goOn:
			case <-ctx.Done():
			}
			outcome <- ctx.Err()
			return ctx.Err()
		}
	})
	path := socketPath(t)
	runSocket(t, e.Server, path)
	terminal, interrupt := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		var answer reconcile.TemplateSet
		answered <- status.NewClient(path).Do(terminal, status.OrderRollback, nil, &answer)
	}()
	<-taken
	interrupt()
	if err := <-answered; err == nil {
		t.Error("Do after its context ended: no error")
	}
	select {
	case err := <-outcome:
		t.Fatalf("the order ended with its terminal: %v", err)
	case <-time.After(300 * time.Millisecond): // the server notices a closed connection within a millisecond
	}
	close(goOn)
	if err := <-outcome; err != nil {
		t.Errorf("the order was interrupted: %v", err)
	}
}

func TestSocketOfAnotherIsLeftAlone(t *testing.T) {
	path, _ := startSocket(t)
	if err := newEnv(t, nil).Server.RunSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Run: %v, want an error that says so", err)
	}
	var state struct{ State string }
	if err := status.NewClient(path).Get(t.Context(), "/v1/status", &state); err != nil {
		t.Errorf("the first one after that: %v", err)
	}
}
