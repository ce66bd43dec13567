package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/status"
)

// socketPath is where the control socket of a state directory is.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "run", "nuncio.sock") }

// statusServer shows what the parts of the daemon report, and takes orders for them.
func (d *daemon) statusServer(c *runCmd) *status.Server {
	runtime := haproxy.RuntimeSocket(filepath.Join(c.StateDir, "run", "runtime.sock"), 5*time.Second)
	return status.New(status.Options{
		Version: version, Prefix: c.Prefix, Templates: c.Templates, Registry: d.registry, Hosts: c.AdminHost, Logger: d.log,
		Applier: d.manager, Reconciler: d.reconciler, Store: d.store, Runtime: &runtime,
		Generations: func() ([]reload.Generation, error) { return reload.Generations(c.StateDir) },
		Files: func(n int64) (haproxy.Files, error) {
			_, files, err := reload.ReadGeneration(c.StateDir, n)
			return files, err
		},
		Actions: map[string]status.Action{
			"rollback": d.rollback,
			"freeze":   d.freeze,
			"resume":   func(ctx context.Context, _ url.Values) (any, error) { return d.reconciler.Resume(ctx) },
			"accept":   func(ctx context.Context, _ url.Values) (any, error) { return d.reconciler.Accept(ctx) },
		},
	})
}

// serveSocket opens the control socket once the manager has made its directory, and so holds the lock on it.
func (d *daemon) serveSocket(ctx context.Context, c *runCmd, server *status.Server) error {
	for d.manager.Status().Version == "" {
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

func (d *daemon) rollback(ctx context.Context, args url.Values) (any, error) {
	number, err := optionalNumber(args, "template_set")
	if err != nil {
		return nil, err
	}
	return d.reconciler.Rollback(ctx, number)
}

func (d *daemon) freeze(ctx context.Context, args url.Values) (any, error) {
	number, err := optionalNumber(args, "generation")
	if err != nil {
		return nil, err
	}
	return d.reconciler.Freeze(ctx, number)
}

// optionalNumber reads an argument that is 0 if it is not given.
func optionalNumber(args url.Values, name string) (int64, error) {
	text := args.Get(name)
	if text == "" {
		return 0, nil
	}
	number, err := strconv.ParseInt(text, 10, 64)
	if err != nil || number <= 0 {
		return 0, fmt.Errorf("%s %q: want a number, such as nuncio history shows", strings.ReplaceAll(name, "_", " "), text)
	}
	return number, nil
}
