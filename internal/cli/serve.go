package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serveGrace is how long requests may take after ctx ends: enough for a scrape in progress.
const serveGrace = 500 * time.Millisecond

// Serve serves on l until ctx ends, and closes l. Requests in progress then get serveGrace; the context of those that
// never end by themselves, such as event streams, ends too. It returns nil only if ctx ended.
func Serve(ctx context.Context, l net.Listener, server *http.Server) error {
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	server.ReadHeaderTimeout, server.IdleTimeout = 10*time.Second, time.Minute
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	deadline, stop := context.WithTimeout(context.WithoutCancel(ctx), serveGrace)
	defer stop()
	if server.Shutdown(deadline) != nil {
		server.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve on %s: %w", l.Addr(), err)
	}
	return nil
}
