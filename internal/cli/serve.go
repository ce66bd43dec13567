package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serveGrace is how long requests may take to end once a server is asked to stop: enough for a scrape under way.
const serveGrace = 500 * time.Millisecond

// Serve answers on l until ctx ends, and closes l. Requests under way then get half a second; those that never end by
// themselves, such as event streams, see their own context end. It returns nil only because ctx ended.
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
