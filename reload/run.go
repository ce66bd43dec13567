package reload

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

const (
	pollOldWorkers = 5 * time.Second
	// killAfter is how long haproxy gets to obey SIGTERM, which takes it milliseconds.
	killAfter = 3 * time.Second
	// repeatDrain is how long haproxy gets to show that it heard SIGUSR1, which takes it milliseconds.
	repeatDrain = time.Second
)

// Run owns the haproxy process until ctx ends, and then drains it. It returns nil only if ctx ended and
// haproxy ended well; a *SetupError if it could not begin, an *ExitError if haproxy cannot be kept alive. Call it
// once.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.done)
	defer m.enter(Stopped)
	if err := m.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &SetupError{err}
	}
	defer m.store.close()
	m.enter(Waiting)
	boot := time.NewTimer(m.opts.BootWait)
	defer boot.Stop()
	poll, reconcile := time.NewTicker(pollOldWorkers), time.NewTicker(m.reconcileEvery)
	defer poll.Stop()
	defer reconcile.Stop()
	for {
		if ctx.Err() != nil { // a busy channel must not win over the end
			return m.drain()
		}
		select {
		case <-ctx.Done():
			return m.drain()
		case d := <-m.submits:
			m.take(ctx, d)
		case r := <-m.requests:
			result, err := m.applyOnce(ctx, r.desired)
			r.reply <- answer{result, err}
		case <-boot.C:
			m.boot(ctx)
		case <-m.retry.c():
			m.apply(ctx)
		case <-m.restart.c():
			m.revive(ctx)
		case <-m.dead():
			if err := m.bury(); err != nil {
				return err
			}
		case <-m.saver.timer.c():
			m.save(ctx)
		case r := <-m.saver.done:
			m.finish(ctx, r)
		case <-m.live.sweep.c():
			m.exorcise(ctx)
		case <-m.live.drift.c():
			m.patrol(ctx)
		case <-poll.C:
			m.countOldWorkers(ctx)
		case <-reconcile.C:
			m.reconcile(ctx)
		}
	}
}

// open does all that can fail because of how nuncio was set up.
func (m *Manager) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.CheckTimeout)
	defer cancel()
	version, err := haproxy.ReadVersion(ctx, m.opts.HAProxy, func(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
		res, err := m.opts.Procs.Output(ctx, cmd, proc.DefaultLimit)
		return res.Stdout, err
	})
	if err != nil {
		return err
	}
	m.version, m.live.planner.version, m.live.planner.keywords = version, version, haproxy.KeywordsOf(version)
	if m.store, err = openStore(m.opts.StateDir, m.opts.RunDir); err != nil {
		return err
	}
	m.publish(func(s *Status) { s.Version = version.String() })
	m.opts.Logger.Info("haproxy found", "version", version.String(), "path", m.opts.HAProxy, "state_dir", m.opts.StateDir)
	if err := stopStray(ctx, m.opts); err != nil {
		m.store.close()
		return err
	}
	return nil
}

// take makes a submitted set the desired one. An equal set that is being retried keeps its pause.
func (m *Manager) take(ctx context.Context, d Desired) {
	if d.Now {
		m.holds.all = nil
	}
	same := m.desired != nil && m.desired.Files.Equal(d.Files)
	m.desired, m.direct = &d, false
	if same && m.retry.armed() && !d.Now {
		m.announce()
		return
	}
	m.retry.reset()
	m.apply(ctx)
}

// boot starts the last good generation when nobody has submitted anything in time: etcd may be away.
func (m *Manager) boot(ctx context.Context) {
	if m.desired != nil || m.child != nil {
		return
	}
	m.revive(ctx)
}

// revive starts haproxy on what it ran last: after its death, at boot, and when the first set that was
// submitted is no good.
func (m *Manager) revive(ctx context.Context) {
	m.restart.disarm()
	if m.child != nil {
		return
	}
	m.enter(Starting)
	found, err := m.lastGood(ctx)
	if err == nil && !found {
		m.settle() // there is nothing to start
		return
	}
	began := time.Now()
	if err == nil {
		err = m.diagnose(ctx, m.start(ctx), m.running.files)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		if taken := takenIn(err); taken != nil {
			// Who made these files may have others that ask for less.
			m.record(Result{
				Time: began, Duration: time.Since(began), Mode: ModeStart, Outcome: Failed, Revision: m.running.generation.Revision,
				Digest: m.running.files.Digest(), Reason: err.Error(), Taken: taken,
			})
		}
		m.restart.arm(0)
		m.report("haproxy does not start", err)
		m.signalOutdated()
	} else {
		m.running.confirmed = true
		m.live.forget(m.running.files)
		m.opts.Logger.Info("haproxy started from the last good generation", "generation", m.running.generation.Number,
			"revision", m.running.generation.Revision, "submitted", m.running.submitted)
		m.publish(func(s *Status) { s.AppliedTime = time.Now() })
	}
	m.settle()
}

// lastGood makes sure that the current generation is what HAProxy ran last, checked, and says
// whether there is one. After a start of nuncio it is the newest one on disk that still passes.
func (m *Manager) lastGood(ctx context.Context) (bool, error) {
	if m.running.generation.Number != 0 {
		return true, m.restoreSaved(ctx)
	}
	generations, err := Generations(m.opts.StateDir)
	if err != nil {
		return false, err
	}
	slices.Reverse(generations)
	// The current one comes first, whatever its number: a rollback may have chosen it.
	slices.SortStableFunc(generations, func(a, b Generation) int {
		switch {
		case a.Current:
			return -1
		case b.Current:
			return 1
		}
		return 0
	})
	var errs []error
	for _, g := range generations {
		_, files, err := ReadGeneration(m.opts.StateDir, g.Number)
		if err == nil {
			err = m.check(ctx, g.Number)
		}
		if err == nil {
			m.running = running{files: files, saved: files, generation: g}
			return true, m.restore(ctx)
		}
		errs = append(errs, fmt.Errorf("generation %d: %w", g.Number, err))
	}
	return false, errors.Join(errs...)
}

// restore puts the running files back on disk, as a checked and current generation, if they are not there.
func (m *Manager) restore(ctx context.Context) error {
	g := m.running.generation
	if m.verify(g.Number, m.running.files) == nil {
		return nil
	}
	// Another generation may be current only because the link was moved.
	if m.store.swap(g.Number) == nil && m.verify(g.Number, m.running.files) == nil {
		return nil
	}
	revision := g.Revision
	next, err := m.prepare(ctx, m.running.files, revision)
	if err != nil {
		return err
	}
	if err := m.store.swap(next.Number); err != nil {
		return err
	}
	m.running.generation = next
	return m.verify(next.Number, m.running.files)
}

// start starts haproxy on the current generation and waits until a worker answers. After an error no process of it is
// left, unless nuncio was told to stop meanwhile: a haproxy that has not been confirmed may serve requests all the same, so
// that one is left to drain.
func (m *Manager) start(ctx context.Context) error {
	child, err := launch(m.opts, m.version)
	if err != nil {
		return err
	}
	settling, cancel := m.reloadContext(ctx)
	defer cancel()
	err = child.confirm(settling, haproxy.Processes{})
	if err != nil && ctx.Err() == nil {
		child.child.KillGroup()
		<-child.child.Done()
	} else {
		m.child = child
	}
	if err != nil {
		return fmt.Errorf("start haproxy: %w", err)
	}
	m.live.planner.keywords = child.keywords(settling, m.live.planner.keywords)
	m.restart.disarm()
	return nil
}

func (m *Manager) dead() <-chan struct{} {
	if m.child == nil {
		return nil
	}
	return m.child.child.Done()
}

// bury takes note of haproxy's death and plans its return. It returns an error when that has no prospect.
func (m *Manager) bury() error {
	const stable = time.Minute
	end := m.child.obituary()
	lived := time.Since(m.child.since)
	m.child.reap()
	m.child = nil
	if lived > stable {
		m.crashes = 0
		m.restart.reset()
	}
	m.crashes++
	m.metrics.restarts.Inc()
	m.publish(func(s *Status) {
		s.State, s.Since = Degraded, time.Now() // in one step: nobody may see "running" without a process
		s.Restarts++
		s.OldWorkers = 0
	})
	m.report("haproxy died", end)
	if m.crashes >= m.opts.MaxCrashes {
		return fmt.Errorf("haproxy died %d times in a row within %v of its start; giving up: %w", m.crashes, stable, end)
	}
	if m.crashes == 1 {
		m.restart.in(0)
	} else {
		m.restart.arm(0)
	}
	m.settle()
	return nil
}

// drain ends haproxy: it gets DrainTimeout to finish the requests under way, less if someone is in a hurry.
func (m *Manager) drain() error {
	m.enter(Draining)
	if m.child == nil {
		m.flush()
		return nil
	}
	m.opts.Logger.Info("draining: no new connections, requests under way may end", "limit", m.opts.DrainTimeout)
	began, died := time.Now(), m.dead()
	// One that is still starting may not know the signal yet, and then it dies of it.
	confirmed := m.child.worker != 0
	_ = m.child.child.Signal(syscall.SIGUSR1) // if it has ended, died says so
	timer := time.NewTimer(m.opts.DrainTimeout)
	defer timer.Stop()
	m.flush()
	killed := m.awaitDrained(timer.C)
	<-died
	end := m.child.obituary()
	m.child.reap()
	m.child = nil
	m.opts.Logger.Info("haproxy ended", "exit_code", end.Code, "after", time.Since(began).Round(time.Millisecond))
	if end.Code != 0 && !killed && confirmed {
		return end
	}
	return nil
}

// awaitDrained returns when haproxy has ended, or was told to end because there is no more time; killed says that it did not
// obey even that.
func (m *Manager) awaitDrained(timeout <-chan time.Time) (killed bool) {
	again := time.NewTicker(repeatDrain)
	defer again.Stop()
	for {
		select {
		case <-m.dead():
			return false
		case <-again.C:
			// A master loses a signal that comes in its first milliseconds. It does not mind hearing it again, but logs it.
			if m.child.deaf() {
				_ = m.child.child.Signal(syscall.SIGUSR1) // if it has ended, dead says so
			}
		case <-m.hurried:
			m.opts.Logger.Warn("drain cut short: asked to hurry")
			return m.child.terminate(killAfter)
		case <-timeout:
			m.opts.Logger.Warn("drain cut short: requests did not end in time", "limit", m.opts.DrainTimeout)
			return m.child.terminate(killAfter)
		}
	}
}

// reconcile notices what changed behind our back. It repairs the files without touching HAProxy, which reads
// them only when it is told to.
func (m *Manager) reconcile(ctx context.Context) {
	if m.child == nil || m.running.generation.Number == 0 {
		return
	}
	if m.saver.behind() {
		return // the disk is about to change
	}
	if found := m.verify(m.running.generation.Number, m.running.files); found != nil {
		if err := m.restore(ctx); err != nil {
			m.report("the current generation was changed from outside and cannot be restored", err)
			m.enter(Degraded)
		} else {
			m.opts.Logger.Warn("the current generation was changed from outside; it is restored", "found", found)
			m.settle()
		}
	}
	switch {
	case m.desired == nil && !m.running.confirmed:
		m.repair(ctx)
	case m.desired != nil && !m.retry.armed() && (!m.running.confirmed || !m.direct && !m.running.files.Equal(m.desired.Files)):
		m.apply(ctx)
	}
}
