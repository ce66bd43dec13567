package reload

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/generation"
	"nuncio/reload/internal/process"
)

// stable is how long a haproxy has to live for the next crash to count as the first.
const stable = time.Minute

// startLastGood starts haproxy with what it ran last: after it has exited, when no Apply comes, and when the first files are
// rejected.
func (m *Manager) startLastGood(ctx context.Context) {
	m.restart.disarm()
	if m.child != nil {
		return
	}
	m.setState(Starting, nil)
	found, err := m.findLastGood(ctx)
	if err == nil && found {
		err = m.start(ctx, m.running.files)
	}
	if ctx.Err() != nil || err == nil && !found {
		return
	}
	if err != nil {
		m.restart.arm()
		m.reportError("haproxy does not start", err)
		m.signalOutdated() // the caller of Apply may have files that can be started
		return
	}
	m.confirmLoaded()
	m.opts.Logger.Info("haproxy started from the last good generation", "generation", m.running.generation.Number,
		"revision", m.running.generation.Revision, "applied", m.running.applied)
	m.publish(func(s *Status) { s.AppliedTime = time.Now() })
}

// confirmLoaded takes note that HAProxy has loaded the running files from disk.
func (m *Manager) confirmLoaded() {
	m.running.confirmed, m.running.unknown, m.running.generation.Changes = true, false, 0
	m.ahead = false
	m.worker.reset(m.running.files)
}

// findLastGood makes sure that the current generation is what HAProxy ran last, checked, and reports whether there is one.
// After a start of nuncio it is the newest one on disk that still passes.
func (m *Manager) findLastGood(ctx context.Context) (bool, error) {
	if m.running.generation.Number != 0 {
		return true, m.bringToDisk(ctx)
	}
	generations, err := Generations(m.opts.StateDir)
	if err != nil {
		return false, err
	}
	// The current one is the first to try: a crash may have left a newer one that HAProxy never ran.
	if i := slices.IndexFunc(generations, func(g Generation) bool { return g.Current }); i >= 0 {
		current := generations[i]
		generations = append(slices.Delete(generations, i, i+1), current)
	}
	var errs []error
	for _, g := range slices.Backward(generations) {
		_, files, err := ReadGeneration(m.opts.StateDir, g.Number)
		if err == nil {
			err = m.checkGeneration(ctx, g.Number, 0)
		}
		if err == nil {
			m.running = running{files: files, saved: files, generation: g}
			return true, m.restoreFiles(ctx)
		}
		errs = append(errs, fmt.Errorf("generation %d: %w", g.Number, err))
	}
	return false, errors.Join(errs...)
}

// start starts haproxy on the current generation, which has these files, and waits until a worker answers. After an error no
// process of it is left, unless nuncio has to stop meanwhile: a haproxy that has not been confirmed may serve requests
// all the same, so that one is left to drain. The error wraps a *BindError if addresses are in use.
func (m *Manager) start(ctx context.Context, files haproxy.Files) error {
	m.forgetHealth()
	child, err := process.Launch(m.launchOptions())
	if err != nil {
		return err
	}
	m.keepRecord(child.Record(0))
	confirming, cancel := m.reloadContext(ctx)
	defer cancel()
	err = child.Confirm(confirming)
	if err != nil && ctx.Err() == nil {
		child.Kill()
		if inUse := process.ProbeAll(files.Config(), m.opts.env); inUse != nil {
			err = fmt.Errorf("%w: %w", inUse, err)
		}
		return fmt.Errorf("start haproxy: %w", err)
	}
	m.child = child
	if err != nil {
		return fmt.Errorf("start haproxy: %w", err)
	}
	m.worker.planner.Keywords = child.Keywords(confirming, m.worker.planner.Keywords)
	m.restart.disarm()
	return nil
}

func (m *Manager) launchOptions() process.Options {
	current := filepath.Join(m.opts.StateDir, generation.CurrentLink)
	return process.Options{
		Program: m.opts.HAProxy, Env: m.opts.env, RunDir: m.opts.RunDir,
		Configs:       []string{filepath.Join(current, generation.OwnConfigFile), filepath.Join(current, haproxy.ConfigFile)},
		ReloadTimeout: m.opts.ReloadTimeout, Procs: m.opts.Procs, Logger: m.opts.HAProxyLogger,
		AccessLog: m.opts.AccessLog,
	}
}

// handleExit takes note that haproxy has ended and plans its next start. It returns an error when there is no point in one.
func (m *Manager) handleExit() error {
	m.child.KillWorkers()
	end := m.child.ExitError()
	lived := time.Since(m.child.Started())
	m.child = nil
	if lived > stable {
		m.crashes = 0
		m.restart.reset()
	}
	m.crashes++
	m.metrics.restarts.Inc()
	m.setState(Degraded, func(s *Status) { // in one step: a reader must not see "running" without a process
		s.Restarts++
		s.OldWorkers = 0
	})
	m.reportError("haproxy exited unexpectedly", end)
	if m.crashes >= m.opts.MaxCrashes {
		return fmt.Errorf("haproxy exited %d times in a row within %v of its start; giving up: %w", m.crashes, stable, end)
	}
	if m.crashes == 1 {
		m.restart.in(0)
	} else {
		m.restart.arm()
	}
	return nil
}

// superviseWorker sees to it that a worker whose state is not known gets reloaded after a pause.
func (m *Manager) superviseWorker() {
	switch {
	case m.child == nil:
		m.repair.disarm()
	case m.ahead && m.desired == nil:
		// What is on disk is older than what serves. The first Apply reloads; the store may be away until then.
	case m.running.confirmed:
		m.repair.reset()
	case !m.repair.armed():
		m.repair.arm()
	}
}

// repairSoon is for a worker whose state became unknown without a reload that failed. superviseWorker stops it if no haproxy runs.
func (m *Manager) repairSoon() {
	if !m.running.confirmed && !m.repair.armed() {
		m.repair.in(0)
	}
}

// repairWorker makes a worker whose state is not known run the files that HAProxy has confirmed.
func (m *Manager) repairWorker(ctx context.Context) {
	m.repair.disarm()
	if m.child == nil || m.running.confirmed {
		return
	}
	m.setState(Applying, nil)
	began := time.Now()
	err := m.bringToDisk(ctx)
	if err == nil {
		m.opts.Step("repair")
		err = m.reload(ctx, m.running.files)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.reportError("haproxy is not certain to run what it should", err)
		return
	}
	m.confirmLoaded()
	g := m.running.generation
	m.record(Result{
		Time: began, Duration: time.Since(began), Mode: ModeReload, Outcome: Reloaded, Revision: g.Revision, Generation: g.Number,
		Digest: g.Digest, TemplateSet: g.TemplateSet, Reason: "the running worker was not as it should be",
	})
}

// verifyFiles repairs the files of the current generation when they were changed from outside. HAProxy is not touched: it reads
// them only when it is reloaded.
func (m *Manager) verifyFiles(ctx context.Context) {
	m.verifyRecord()
	if m.child == nil || m.running.generation.Number == 0 || m.saver.pending() {
		return // while a save is due, the disk is about to change
	}
	found := m.store.Verify(m.running.generation.Number, m.running.files)
	if found == nil {
		m.filesLost = false
		return
	}
	if err := m.restoreFiles(ctx); err != nil {
		m.filesLost = true
		m.reportError("the current generation was changed from outside and cannot be restored", err)
		return
	}
	m.filesLost = false
	m.opts.Logger.Warn("restored the current generation, which was changed from outside", "found", found)
}

// restoreFiles puts the running files back on disk, as a checked and current generation, if they are not there.
func (m *Manager) restoreFiles(ctx context.Context) error {
	g := m.running.generation
	if m.store.Switch(g.Number, m.running.files) == nil {
		return nil // only the link may have been moved
	}
	if !m.running.files.Equal(m.running.saved) {
		g.Kind = KindEndpoints
	}
	g.Created = time.Now().UTC()
	next, err := m.stage(ctx, m.running.files, g, false)
	if err != nil {
		return err
	}
	m.running.generation = next
	return m.store.Switch(next.Number, m.running.files)
}
