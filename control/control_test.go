package control_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nuncio/control"
	"nuncio/internal/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a Server in a directory with a short name, which a socket needs.
func start(t *testing.T) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "n")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "nuncio.sock")
	// What a killed nuncio leaves behind is no obstacle.
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	server := control.New(control.Options{
		Path:    path,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"state":"running"}`)) }),
		Actions: map[string]control.Action{
			"echo":   func(_ context.Context, args url.Values) (any, error) { return args.Get("word"), nil },
			"refuse": func(context.Context, url.Values) (any, error) { return nil, errors.New("not now") },
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	var once bool
	stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	testkit.Eventually(t, 10*time.Second, func() error {
		var answer map[string]string
		return control.NewClient(path).Get(t.Context(), "/v1/status", &answer)
	})
	return path, stop
}

func TestAskAndTell(t *testing.T) {
	path, stop := start(t)
	c := control.NewClient(path)
	var state struct{ State string }
	if err := c.Get(t.Context(), "/v1/status", &state); err != nil || state.State != "running" {
		t.Errorf("Get: %+v, %v, want running", state, err)
	}
	var word string
	if err := c.Do(t.Context(), "echo", url.Values{"word": {"a b&c"}}, &word); err != nil || word != "a b&c" {
		t.Errorf("Do: %q, %v, want the word back", word, err)
	}
	var no *control.RefusedError
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
	if err := c.Get(t.Context(), "/v1/status", &state); !errors.Is(err, control.ErrUnreachable) {
		t.Errorf("Get after the end: %v, want ErrUnreachable", err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestSocketOfAnotherIsLeftAlone(t *testing.T) {
	path, _ := start(t)
	if err := control.New(control.Options{Path: path}).Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second Run: %v, want an error that says so", err)
	}
	var state struct{ State string }
	if err := control.NewClient(path).Get(t.Context(), "/v1/status", &state); err != nil {
		t.Errorf("the first one after that: %v", err)
	}
}
