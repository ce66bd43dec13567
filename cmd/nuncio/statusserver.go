package main

import (
	"context"
	"path/filepath"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/status"
)

// socketPath is where the control socket of a state directory is.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "run", "nuncio.sock") }

// statusServer shows what the parts of the daemon report, and takes orders for them.
func (d *daemon) statusServer(c *runCmd) *status.Server {
	runtime := haproxy.RuntimeSocket(filepath.Join(c.StateDir, "run", "runtime.sock"), 5*time.Second)
	return status.New(status.Options{
		Version: version, Prefix: c.Prefix, Templates: c.Templates, Registry: d.registry, Hosts: c.AdminHost, Logger: d.log,
		Applier: d.manager, Reconciler: d.reconciler, Store: d.store, Runtime: runtime, Disk: status.StateDir(c.StateDir),
	})
}

// serveSocket opens the control socket once the manager has made its directory, and so holds the lock on it.
func (d *daemon) serveSocket(ctx context.Context, c *runCmd, server *status.Server) error {
	for {
		changed := d.manager.Changed()
		if d.manager.Status().Version != "" {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	if err := server.RunSocket(ctx, socketPath(c.StateDir)); err != nil {
		// Serving traffic matters more than taking orders.
		d.log.Error("control socket unavailable", "err", err)
	}
	return nil
}
