package reload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

// way is how files get from disk or memory into HAProxy.
type way struct {
	mode    Mode
	reason  string
	runtime *plan.Plan // with ModeRuntime
}

// choose is the one place that decides how a set of files gets into HAProxy. runtime looks for a way without a reload.
func choose(now running, alive bool, next haproxy.Files, runtime func(haproxy.Files) (*plan.Plan, string)) way {
	switch {
	case !alive:
		return way{mode: ModeStart, reason: "no haproxy runs"}
	case !now.confirmed:
		return way{mode: ModeReload, reason: "it is not certain what haproxy runs"}
	case now.files.Equal(next):
		return way{mode: ModeNone, reason: "haproxy runs these files"}
	}
	p, reason := runtime(next)
	if p == nil {
		return way{mode: ModeReload, reason: reason}
	}
	return way{mode: ModeRuntime, reason: "only servers, maps, lists and certificates differ", runtime: p}
}

// apply makes one attempt to get files into HAProxy and records how it went. Its errors are those of Apply.
func (m *Manager) apply(ctx context.Context, d Desired) (Result, error) {
	began := time.Now()
	w := choose(m.running, m.child != nil, d.Files, m.planCommands)
	var number int64
	var err error
	if w.mode == ModeRuntime {
		// A change by commands takes a millisecond: publishing comes after it.
		if err = m.applyCommands(ctx, w.runtime, d); err != nil && ctx.Err() == nil {
			w = way{mode: ModeReload, reason: err.Error()}
		}
	}
	if w.mode == ModeReload && d.NoReload {
		return m.applyPart(ctx, d, w.reason)
	}
	m.desired = &d
	switch w.mode {
	case ModeNone:
		g := &m.running.generation
		m.running.applied, g.Revision, g.TemplateSet, number = true, d.Revision, d.TemplateSet, g.Number
	case ModeStart, ModeReload:
		if err != nil {
			m.opts.Logger.Warn("runtime update failed, falling back to reload", "revision", d.Revision, "err", err)
		}
		m.setState(Applying, func(s *Status) { s.DesiredRevision, s.DesiredDigest = d.Revision, d.Files.Digest() })
		number, err = m.load(ctx, w.mode, d)
	}
	if err != nil && ctx.Err() != nil {
		return Result{}, ErrStopped // nothing has been learnt about these files
	}
	r := newResult(began, w, d, number, err)
	m.record(r)
	if err != nil {
		m.publish(func(s *Status) { s.LastError, s.LastErrorTime = err.Error(), time.Now() })
		if _, failed := errors.AsType[*ReloadError](err); m.child == nil && !m.restart.armed() {
			m.restart.in(0) // the last good generation, if there is one
		} else if !failed {
			m.repairSoon() // some commands may have been carried out
		}
	}
	return r, err
}

// applyPart is for files that need a reload which has to wait: endpoint changes in them do not wait for it. Its error wraps
// ErrReloadNeeded.
func (m *Manager) applyPart(ctx context.Context, d Desired, reason string) (Result, error) {
	defer m.repairSoon() // commands may have failed, before or here
	began, needed := time.Now(), fmt.Errorf("%w: %s", ErrReloadNeeded, reason)
	if !m.running.confirmed || m.worker.model == nil || m.running.generation.TemplateSet != d.TemplateSet {
		return Result{}, needed // server lines of one template set have a different meaning between the lines of another
	}
	p, files := m.worker.planner.PlanPart(m.worker.model, m.running.files, d.Files, m.worker.leaving)
	if p == nil {
		return Result{}, needed
	}
	g := m.running.generation
	if err := m.applyCommands(ctx, p, Desired{Files: files, Revision: g.Revision, TemplateSet: g.TemplateSet}); err != nil {
		if ctx.Err() != nil {
			return Result{}, ErrStopped
		}
		return Result{}, errors.Join(needed, err)
	}
	m.desired = &Desired{Files: files, Revision: d.Revision, TemplateSet: d.TemplateSet}
	r := newResult(began, way{mode: ModeRuntime, reason: "in part: " + reason, runtime: p}, *m.desired, 0, nil)
	m.record(r)
	r.Files = files
	return r, needed
}

func newResult(began time.Time, w way, d Desired, number int64, err error) Result {
	r := Result{
		Time: began, Duration: time.Since(began), Mode: w.mode, Revision: d.Revision, Generation: number,
		Digest: d.Files.Digest(), Reason: w.reason, TemplateSet: d.TemplateSet,
	}
	switch {
	case isCheckError(err):
		r.Outcome, r.Reason = Rejected, err.Error()
	case err != nil:
		r.Outcome, r.Reason = Failed, err.Error()
	default:
		r.Outcome = map[Mode]Outcome{ModeNone: Unchanged, ModeStart: Started, ModeReload: Reloaded, ModeRuntime: Runtime}[w.mode]
		if w.runtime != nil {
			r.Servers, r.Commands = w.runtime.Servers, w.runtime.Commands
		}
	}
	return r
}

// load gets files into HAProxy by making it read them, and returns the number of the new generation. On an error the
// generation that was current before is current again.
func (m *Manager) load(ctx context.Context, mode Mode, d Desired) (int64, error) {
	m.cancelSave()
	number, err := m.loadNew(ctx, mode, d)
	if err == nil {
		m.saver.saved()
		m.saver.rest(m.opts.SaveInterval, 0)
		m.worker.reset(d.Files)
		m.opts.Step("prune")
		m.prune()
		return number, nil
	}
	if m.saver.pending() && m.child != nil && m.running.confirmed {
		m.saver.schedule()
	}
	return 0, err
}

func (m *Manager) loadNew(ctx context.Context, mode Mode, d Desired) (int64, error) {
	kind := map[Mode]Kind{ModeStart: KindStart, ModeReload: KindReload}[mode]
	g := Generation{Revision: d.Revision, Kind: kind, TemplateSet: d.TemplateSet, Created: time.Now().UTC()}
	next, err := m.stage(ctx, d.Files, g, false)
	if err != nil {
		return 0, err
	}
	previous, err := m.store.Current()
	if err == nil {
		err = m.activate(ctx, mode, next, d.Files)
	}
	if err != nil {
		back := m.store.Activate(previous)
		if back == nil {
			back = m.store.Remove(next.Number)
		}
		return 0, errors.Join(err, back)
	}
	m.running = running{files: d.Files, saved: d.Files, generation: next, confirmed: true, applied: true}
	return next.Number, nil
}

// stage writes files as a new generation and has it checked; g lacks the number and the digest. On an error nothing of it
// is left. A background goroutine may call it too: of m it uses only the options and the store then, and it tries no address,
// because the files are those of commands, which add none.
func (m *Manager) stage(ctx context.Context, files haproxy.Files, g Generation, background bool) (Generation, error) {
	if err := vet(files, m.opts.env); err != nil {
		return Generation{}, err
	}
	m.opts.Step("write")
	number, err := m.store.Write(files)
	if err != nil {
		return Generation{}, err
	}
	g.Number, g.Digest = number, files.Digest()
	m.opts.Step("check")
	niceness := 0
	if background {
		niceness = saveNiceness
	}
	err = m.checkGeneration(ctx, number, niceness)
	if err == nil && !background {
		m.opts.Step("bind")
		err = m.probe(files)
	}
	if err == nil {
		m.opts.Step("seal")
		err = m.store.Seal(g)
	}
	if err != nil {
		return Generation{}, errors.Join(err, m.store.Remove(number))
	}
	return g, nil
}

// probe tries addresses that are new. While no haproxy serves there is nothing to protect: the start itself finds out.
func (m *Manager) probe(files haproxy.Files) error {
	if m.child == nil {
		return nil
	}
	if err := process.Probe(m.running.files.Config(), files.Config(), m.opts.env); err != nil {
		return fmt.Errorf("%w; HAProxy was not reloaded, because it would stop serving for two seconds and then fail", err)
	}
	return nil
}

// activate makes a checked generation current and HAProxy load it.
func (m *Manager) activate(ctx context.Context, mode Mode, next Generation, files haproxy.Files) error {
	m.opts.Step("swap")
	if err := m.store.Switch(next.Number, files); err != nil {
		return err
	}
	m.opts.Step("load")
	if mode == ModeStart {
		return m.start(ctx, files)
	}
	return m.reload(ctx, files)
}

// reload makes HAProxy load the current generation, which has these files.
func (m *Manager) reload(ctx context.Context, files haproxy.Files) error {
	ctx, cancel := m.reloadContext(ctx)
	defer cancel()
	dead := m.noteHealth(ctx, files)
	err := m.child.Reload(ctx)
	m.passHealthOn(ctx, dead, err)
	if errors.Is(err, process.ErrUnknown) {
		m.running.confirmed, m.running.unknown = false, true
	}
	if err != nil {
		return &ReloadError{err}
	}
	return nil
}

// reloadContext ends after ReloadTimeout, or ShutdownGrace after ctx, or with ctx once StopNow was called.
func (m *Manager) reloadContext(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opts.ReloadTimeout)
	stop := context.AfterFunc(ctx, func() {
		grace := time.NewTimer(m.opts.ShutdownGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
		case <-m.stopNow:
		case <-own.Done():
		}
		cancel()
	})
	return own, func() { stop(); cancel() }
}

func (m *Manager) prune() {
	if err := m.store.Prune(m.opts.Keep); err != nil {
		m.opts.Logger.Warn("old generations cannot be removed", "err", err)
	}
}
