package reload

import (
	"context"
	"os/exec"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
	"nuncio/reload/internal/generation"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

const pollOldWorkers = 5 * time.Second

// Run owns the haproxy process until ctx ends, and then drains it. It returns nil only if ctx ended and
// haproxy ended well; a *SetupError if it could not begin, an *ExitError if haproxy cannot be kept alive. Call it
// once.
func (m *Manager) Run(ctx context.Context) error {
	defer close(m.done)
	defer m.setState(Stopped, nil)
	if err := m.open(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return &SetupError{err}
	}
	defer m.store.Close()
	defer m.cancelSave() // it may write until then
	defer m.commandLog.flush()
	m.superviseWorker() // of an adopted haproxy
	m.updateState()
	return m.loop(ctx)
}

func (m *Manager) loop(ctx context.Context) error {
	startWait := time.NewTimer(m.opts.StartWait)
	defer startWait.Stop()
	poll, verify, directories := time.NewTicker(pollOldWorkers), time.NewTicker(m.opts.VerifyInterval), time.NewTicker(watchDirectories)
	defer poll.Stop()
	defer verify.Stop()
	defer directories.Stop()
	for {
		if ctx.Err() != nil { // check first: select picks at random among ready channels
			return m.drain()
		}
		m.opts.Step("wait")
		reply := func() {}
		select {
		case <-ctx.Done():
			return m.drain()
		case r := <-m.requests:
			m.checkDirectories(ctx) // without its sockets HAProxy would be waited for in vain
			result, err := m.apply(ctx, r.desired)
			reply = func() { r.reply <- answer{result, err} }
		case <-startWait.C:
			if m.desired == nil { // no Apply has come: the store may be away
				m.startLastGood(ctx)
			}
		case <-m.repair.c():
			m.checkDirectories(ctx)
			m.repairWorker(ctx)
		case <-m.restart.c():
			m.startLastGood(ctx)
		case <-m.exited():
			if err := m.handleExit(); err != nil {
				return err
			}
		case <-m.saver.timer.c():
			m.save(ctx)
		case s := <-m.saver.done:
			m.finishSave(ctx, s)
		case <-m.commandLog.pause.c():
			m.commandLog.flush()
		case <-m.worker.deletion.c():
			m.deleteLeaving(ctx)
		case <-m.worker.drift.c():
			m.checkDrift(ctx)
		case <-m.leaving:
			m.handOver()
			return nil
		case <-poll.C:
			m.countOldWorkers(ctx)
		case <-verify.C:
			m.verifyFiles(ctx)
		case <-directories.C:
			m.checkDirectories(ctx)
		}
		if ctx.Err() == nil {
			m.superviseWorker()
			m.remember()
			m.updateState()
		}
		reply() // a caller that has its answer must not see an older state
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
	m.worker.planner = plan.New(version)
	if m.store, err = generation.Open(m.opts.StateDir, m.opts.RunDir, process.OwnConfig(m.opts.RunDir)); err != nil {
		return err
	}
	m.publish(func(s *Status) { s.Version = version.String() })
	m.opts.Logger.Info("haproxy found", "version", version.String(), "path", m.opts.HAProxy, "state_dir", m.opts.StateDir)
	if err := m.adopt(ctx); err != nil {
		m.store.Close()
		return err
	}
	return nil
}

func (m *Manager) exited() <-chan struct{} {
	if m.child == nil {
		return nil
	}
	return m.child.Done()
}

// countOldWorkers asks the master how many replaced workers there still are.
func (m *Manager) countOldWorkers(ctx context.Context) {
	if m.child == nil || m.status.get().OldWorkers == 0 {
		return
	}
	if n, err := m.child.OldWorkers(ctx); err == nil { // the next poll asks again after an error
		m.publish(func(s *Status) { s.OldWorkers = n })
	}
}
