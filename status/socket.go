package status

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"

	"nuncio/internal/cli"
)

// RunSocket answers operators of this machine on a unix socket at path until ctx ends, and then removes the socket. It
// serves everything that Handler serves, and takes orders: POST /v1/do/<name>. Only
// nuncio's own user and root can connect (mode 0600 from its first moment). A socket that a crash left behind is
// replaced; one that another process answers on is an error. RunSocket returns nil only because ctx ended.
func (s *Server) RunSocket(ctx context.Context, path string) error {
	l, err := listenUnix(ctx, path)
	if err != nil {
		return fmt.Errorf("control socket %s: %w", path, err)
	}
	defer func() { _ = os.Remove(path) }() // a leftover is replaced at the next start
	mux := http.NewServeMux()
	mux.Handle("/", s.Handler())
	mux.HandleFunc("POST /v1/do/{order}", s.order)
	return cli.Serve(ctx, l, &http.Server{Handler: mux, ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug)})
}

// listenUnix makes the socket under another name and moves it into place once its mode is right.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	var d net.Dialer
	if c, err := d.DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return nil, errors.New("another process answers on it")
	}
	fresh := path + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "unix", fresh)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // by then the name may be a later nuncio's
	}
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		l.Close()
		return nil, errors.Join(err, os.Remove(fresh))
	}
	return l, nil
}

// errorDoc is the answer to a request that failed.
type errorDoc struct {
	Error string `json:"error"`
}
