package main

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/status"
)

// statePinned: an operator holds HAProxy at one generation.
const statePinned = "pinned"

// socketPath is where the control socket of a state directory is.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "run", "nuncio.sock") }

// statusServer shows what the rooms publish.
func (d *daemon) statusServer(c *runCmd) *status.Server {
	d.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "nuncio_ready", Help: "1 while a configuration made from etcd has been applied and confirmed and HAProxy runs, as /readyz says.",
	}, func() float64 {
		if d.report().Ready {
			return 1
		}
		return 0
	}))
	runtime := haproxy.RuntimeSocket(filepath.Join(c.StateDir, "run", "runtime.sock"), 5*time.Second)
	return status.New(status.Options{
		Report: d.report, Gatherer: d.registry, Hosts: c.AdminHost, Logger: d.log, Changed: d.manager.Changed, Runtime: &runtime,
		Overview:    func() status.Overview { return d.overview(c) },
		Snapshot:    func() *catalog.Snapshot { return d.follower.Status().Snapshot },
		Generations: func() ([]status.Generation, error) { return generations(c.StateDir) },
		Files: func(n int64) (haproxy.Files, error) {
			_, files, err := reload.ReadGeneration(c.StateDir, n)
			return files, err
		},
		Wanted: d.wanted, Actions: d.actions(),
	})
}

func (d *daemon) wanted() (haproxy.Files, error) {
	desired, known := d.gate.Wanted()
	if !known {
		return haproxy.Files{}, fmt.Errorf("nothing is wanted yet: etcd or the templates have not been read")
	}
	return desired.Files, nil
}

// actions are the orders that operators of this machine may give.
func (d *daemon) actions() map[string]status.Action {
	return map[string]status.Action{
		"rollback": d.rollback,
		"resume": func(ctx context.Context, _ url.Values) (any, error) {
			pin, err := d.gate.Resume(ctx)
			return pin.Generation, err
		},
		"accept": func(context.Context, url.Values) (any, error) { return d.follower.Accept(), nil },
		"wanted": func(context.Context, url.Values) (any, error) {
			files, err := d.wanted()
			return asTexts(files), err
		},
	}
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

// asTexts is how files travel to a command.
func asTexts(files haproxy.Files) map[string][]byte {
	out := map[string][]byte{}
	for _, name := range files.Names() {
		out[name], _ = files.Get(name)
	}
	return out
}

func generations(stateDir string) ([]status.Generation, error) {
	all, err := reload.Generations(stateDir)
	var out []status.Generation
	for _, g := range all {
		out = append(out, status.Generation{Number: g.Number, Revision: g.Revision, Digest: g.Digest, Created: g.Created, Current: g.Current})
	}
	return out, err
}

// overview joins what the rooms publish.
func (d *daemon) overview(c *runCmd) status.Overview {
	applying, wanting, watching, report := d.manager.Status(), d.follower.Status(), d.store.Status(), d.report()
	o := status.Overview{
		Nuncio: version, State: report.State, Since: applying.Since, Ready: report.Ready, Reasons: report.Reasons,
		Desired: status.Desired{Revision: applying.DesiredRevision, Digest: applying.DesiredDigest},
		Applied: status.Applied{
			Revision: applying.AppliedRevision, Generation: applying.AppliedGeneration, Digest: applying.AppliedDigest, Time: applying.AppliedTime,
		},
		Store: status.Store{
			Endpoints: watching.Endpoints, Prefix: c.Prefix, Synced: watching.Synced, Revision: watching.Revision,
			LastSync: watching.LastSync, Error: watching.Err, Hint: watching.Hint,
		},
		Templates: status.Templates{Source: cmp.Or(c.Templates, "shipped"), Error: wanting.TemplatesError, RenderError: wanting.RenderError},
		HAProxy: status.HAProxy{
			Version: applying.Version, MasterPid: applying.MasterPid, WorkerPid: applying.WorkerPid,
			OldWorkers: applying.OldWorkers, Restarts: applying.Restarts,
		},
		Error: applying.LastError, ErrorTime: applying.LastErrorTime, Retry: applying.Retry, Applies: applies(applying.Applies, c.StateDir),
	}
	if desired, known := d.gate.Wanted(); known {
		o.Desired = status.Desired{Revision: desired.Revision, Digest: desired.Files.Digest()}
	}
	if pin := d.gate.Pinned(); pin != nil {
		o.Pinned = &status.Pin{Generation: pin.Generation, Since: pin.Since}
	}
	if h := wanting.Hold; h != nil {
		o.Held = &status.Held{Since: h.Since, Until: h.Until, Instances: h.Instances, Remaining: h.Remaining, Services: h.Services}
	}
	for _, r := range wanting.Dropped {
		o.Templates.Refused = append(o.Templates.Refused, status.Refused(r))
	}
	// Held instances are a difference from etcd too.
	o.InStep = applying.Ready && watching.Synced && watching.Err == "" && o.Pinned == nil && o.Held == nil &&
		wanting.TemplatesError == "" && wanting.RenderError == "" && o.Applied.Digest == o.Desired.Digest
	return o
}

// applies also finds the generations that changes without a reload were saved as a moment later: by their digests.
func applies(all []reload.Result, stateDir string) []status.Apply {
	saved := map[string]int64{}
	if slices.ContainsFunc(all, func(a reload.Result) bool { return a.Outcome == reload.Runtime }) {
		onDisk, _ := reload.Generations(stateDir) // without them a line has no number
		for _, g := range onDisk {
			saved[g.Digest] = g.Number
		}
	}
	out := make([]status.Apply, 0, len(all))
	var previous int64
	for _, a := range all {
		v := status.Apply{
			Time: a.Time, Seconds: a.Duration.Seconds(), Mode: string(a.Mode), Result: string(a.Outcome), Revision: a.Revision,
			Generation: a.Generation, Reason: a.Reason, Servers: a.Servers, Commands: a.Commands,
		}
		if a.Outcome == reload.Runtime {
			v.Generation = saved[a.Digest]
		}
		if v.Generation > 0 {
			if v.Generation != previous {
				v.Previous = previous
			}
			previous = v.Generation
		}
		out = append(out, v)
	}
	return out
}
