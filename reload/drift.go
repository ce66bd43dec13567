package reload

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

const (
	// deleteMin and deleteMax bound the growing pause between two attempts to delete leaving servers.
	deleteMin = time.Second
	deleteMax = 30 * time.Second
	// deleteBatch bounds the deletions of one attempt: a change has to wait for it.
	deleteBatch = 1000
	// driftBatch is about how many bytes of configuration are compared at a time, so that no change has to wait for all of
	// them; driftPause is the time between two batches.
	driftBatch = 100 << 10
	driftPause = 20 * time.Millisecond
)

// worker is what is known about the worker that serves, beyond the files that it runs.
type worker struct {
	planner      plan.Planner
	model        *plan.Model             // of the files that run; nil when it is not known
	leaving      map[string]plan.Leaving // by target
	failedDigest string                  // of files that commands were tried for in vain
	deletion     backoff
	drift        timer
	interval     time.Duration // between two comparisons of all servers
	next         int           // section where the comparison goes on
}

func newWorker(interval time.Duration) worker {
	return worker{leaving: map[string]plan.Leaving{}, interval: interval, deletion: newBackoff(deleteMin, deleteMax)}
}

// reset is for a new worker: it has the servers of its files and no others.
func (w *worker) reset(files haproxy.Files) {
	clear(w.leaving)
	w.deletion.reset()
	w.next = 0
	w.model, _ = plan.NewModel(files.Text(haproxy.ConfigFile)) // without one the next change is a reload
	w.drift.in(w.interval)
}

// planCommands looks for a way from what runs to next that needs no new process.
func (m *Manager) planCommands(next haproxy.Files) (*plan.Plan, string) {
	switch {
	case m.worker.model == nil:
		return nil, "the running configuration is not understood"
	case m.worker.failedDigest != "" && m.worker.failedDigest == next.Digest(): // a digest costs more than the plan
		return nil, "the same change has failed without a reload"
	}
	return m.worker.planner.Plan(m.worker.model, m.running.files, next, m.worker.leaving)
}

// applyCommands carries a plan out. After an error nothing is certain about the worker any more.
func (m *Manager) applyCommands(ctx context.Context, p *plan.Plan, d Desired) error {
	leaving := m.worker.leavingAfter(p)
	m.opts.Step("runtime")
	if p.Commands+len(p.Files)+len(p.Certificates) > 0 {
		m.markUnsure()
		ctx, cancel := m.reloadContext(ctx)
		defer cancel()
		if err := execute(ctx, m.child, m.worker.planner, p, leaving); err != nil {
			m.running.confirmed, m.worker.failedDigest = false, d.Files.Digest()
			return fmt.Errorf("change without a reload: %w", err)
		}
	}
	m.opts.Step("confirmed")
	m.metrics.commands.Add(float64(p.Commands))
	m.worker.leaving, m.worker.model = leaving, p.Next
	m.worker.armDeletion()
	g := &m.running.generation
	m.running.files, m.running.applied = d.Files, true
	g.Revision, g.Digest, g.TemplateSet = d.Revision, d.Files.Digest(), d.TemplateSet
	g.Changes += int64(max(1, p.Servers))
	m.saver.schedule()
	return nil
}

// leavingAfter returns the servers that will be leaving once a plan has been carried out.
func (w *worker) leavingAfter(p *plan.Plan) map[string]plan.Leaving {
	if len(p.Left)+len(p.Returned) == 0 {
		return w.leaving
	}
	leaving := make(map[string]plan.Leaving, len(w.leaving)+len(p.Left))
	maps.Copy(leaving, w.leaving)
	for _, target := range p.Returned {
		delete(leaving, target)
	}
	for _, l := range p.Left {
		l.Due = time.Now().Add(l.Linger)
		leaving[l.Target()] = l
	}
	return leaving
}

// leave adds servers to the leaving ones.
func (w *worker) leave(left []plan.Leaving) {
	for _, l := range left {
		l.Due = time.Now().Add(l.Linger)
		w.leaving[l.Target()] = l
	}
	w.armDeletion()
}

func (w *worker) armDeletion() {
	if len(w.leaving) > 0 && !w.deletion.armed() {
		w.deletion.arm()
	}
}

// deleteLeaving deletes leaving servers that nothing uses any more. One that is still in use stays in maintenance: that is
// not a reason for a reload.
func (m *Manager) deleteLeaving(ctx context.Context) {
	w := &m.worker
	w.deletion.disarm()
	if m.child == nil || !m.running.confirmed || len(w.leaving) == 0 {
		w.deletion.reset()
		return
	}
	targets, commands, wait := w.deletions()
	if len(commands) == 0 {
		w.deletion.in(wait)
		return
	}
	deleted := 0
	if err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
		replies, err := s.Do(ctx, commands)
		for i, r := range replies {
			if !commands[i].Failed(r) || strings.HasPrefix(r.Text, "No such ") {
				delete(w.leaving, targets[i])
				deleted++
			}
		}
		return err
	}); err != nil {
		m.opts.Logger.Warn("leaving servers cannot be deleted now", "err", err)
	}
	if deleted > 0 {
		w.deletion.reset()
		m.opts.Logger.Debug("deleted leaving servers", "deleted", deleted, "leaving", len(w.leaving))
	}
	if len(w.leaving) > 0 {
		w.deletion.arm()
	}
}

// deletions returns the leaving servers that are due, and how long the next one has to wait if none is. Backends come last:
// they can be deleted once they have no servers.
func (w *worker) deletions() (targets []string, commands []haproxy.Command, wait time.Duration) {
	wait = -1
	for target, l := range w.leaving {
		switch left := time.Until(l.Due); {
		case left > 0 && (wait < 0 || left < wait):
			wait = left
		case left <= 0 && len(targets) < deleteBatch:
			targets = append(targets, target)
		}
	}
	slices.SortFunc(targets, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	for _, target := range targets {
		commands = append(commands, plan.DeleteCommand(target))
	}
	return targets, commands, wait
}

func (m *Manager) withSession(ctx context.Context, f func(context.Context, *haproxy.Session) error) error {
	ctx, cancel := context.WithTimeout(ctx, process.CommandTimeout)
	defer cancel()
	s, err := m.child.Session(ctx, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(ctx, s)
}

// checkDrift compares the servers of the worker with the files. An operator may have changed one on HAProxy's socket,
// something else may have reloaded HAProxy: either is ended by a reload.
func (m *Manager) checkDrift(ctx context.Context) {
	w := &m.worker
	w.drift.in(w.interval)
	if m.child == nil || !m.running.confirmed || w.model == nil {
		return
	}
	var sections []int
	if sections, w.next = w.model.Batch(w.next, driftBatch); w.next > 0 {
		w.drift.in(driftPause)
	}
	if len(sections) == 0 {
		return
	}
	err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
		drift, _, err := compare(ctx, s, w.planner, w.model, sections, w.leaving)
		if err == nil && len(drift) > 0 {
			err = fmt.Errorf("%d servers differ; the first: %s", len(drift), drift[0])
		}
		return err
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	m.metrics.drifts.Inc()
	m.opts.Logger.Warn("haproxy was changed from outside, reloading it", "err", err)
	m.running.confirmed = false
	m.repairWorker(ctx)
}
