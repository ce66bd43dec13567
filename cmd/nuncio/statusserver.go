package main

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/status"
)

// socketPath is where the control socket of a state directory is.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "run", "nuncio.sock") }

// desiredState joins what the follower and the gate know of what is desired.
type desiredState struct {
	*reconcile.Follower
	gate *reconcile.Gate
}

func (d desiredState) Desired() (haproxy.Files, bool) {
	desired, known := d.gate.Wanted()
	return desired.Files, known
}

// statusServer shows what the parts of the daemon report, and takes orders for them.
func (d *daemon) statusServer(c *runCmd) *status.Server {
	runtime := haproxy.RuntimeSocket(filepath.Join(c.StateDir, "run", "runtime.sock"), 5*time.Second)
	return status.New(status.Options{
		Version: version, Prefix: c.Prefix, Templates: c.Templates, Registry: d.registry, Hosts: c.AdminHost, Logger: d.log,
		Applier: d.manager, Reconciler: desiredState{d.follower, d.gate}, Store: d.store, Runtime: &runtime, Pinned: d.gate.Pinned,
		Generations: func() ([]reload.Generation, error) { return reload.Generations(c.StateDir) },
		Files: func(n int64) (haproxy.Files, error) {
			_, files, err := reload.ReadGeneration(c.StateDir, n)
			return files, err
		},
		Actions: map[string]status.Action{
			"rollback": d.rollback,
			"resume": func(ctx context.Context, _ url.Values) (any, error) {
				pin, err := d.gate.Resume(ctx)
				return pin.Generation, err
			},
			"accept": func(context.Context, url.Values) (any, error) { return d.follower.Accept(), nil },
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
	var number int64
	if text := args.Get("generation"); text != "" {
		var err error
		if number, err = strconv.ParseInt(text, 10, 64); err != nil || number <= 0 {
			return nil, fmt.Errorf("%q is no generation: want a number, such as nuncio history shows", text)
		}
	}
	pin, err := d.gate.Pin(ctx, number)
	return pin.Generation, err
}
