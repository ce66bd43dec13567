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
	return path, runSocket(t, withActions(t, map[string]status.Action{
		"echo":   func(_ context.Context, args url.Values) (any, error) { return args.Get("word"), nil },
		"refuse": func(context.Context, url.Values) (any, error) { return nil, errors.New("not now") },
	}), path)
}

func withActions(t *testing.T, actions map[string]status.Action) *status.Server {
	t.Helper()
	options := newEnv(t, nil).options(nil)
	options.Actions = actions
	return status.New(options)
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
	var word string
	if err := c.Do(t.Context(), "echo", url.Values{"word": {"a b&c"}}, &word); err != nil || word != "a b&c" {
		t.Errorf("Do: %q, %v, want the word back", word, err)
	}
	var no *status.RefusedError
	if err := c.Do(t.Context(), "refuse", nil, &word); !errors.As(err, &no) || no.Message != "not now" {
		t.Errorf("Do of an action that refuses: %v, want its own words", err)
	}
	if err := c.Do(t.Context(), "nosuch", nil, &word); !errors.As(err, &no) || !strings.Contains(no.Message, `"nosuch"`) {
		t.Errorf("Do of an unknown action: %v, want its name", err)
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
	order := func(ctx context.Context, _ url.Values) (any, error) {
		close(taken)
		select {
		case <-goOn:
		case <-ctx.Done():
		}
		outcome <- ctx.Err()
		return "done", ctx.Err()
	}
	server := withActions(t, map[string]status.Action{"slow": order})
	path := socketPath(t)
	runSocket(t, server, path)
	terminal, interrupt := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		var answer string
		answered <- status.NewClient(path).Do(terminal, "slow", nil, &answer)
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
	if err := withActions(t, nil).RunSocket(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Run: %v, want an error that says so", err)
	}
	var state struct{ State string }
	if err := status.NewClient(path).Get(t.Context(), "/v1/status", &state); err != nil {
		t.Errorf("the first one after that: %v", err)
	}
}
