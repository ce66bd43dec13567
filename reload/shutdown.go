package reload

import (
	"time"

	"nuncio/reload/internal/process"
)

// repeatDrain is how long haproxy gets to show that it has received the signal to drain, which takes it milliseconds.
const repeatDrain = time.Second

// drain ends haproxy: it gets DrainTimeout to finish the requests under way, less after StopNow.
func (m *Manager) drain() error {
	m.setState(Draining, nil)
	if m.child == nil {
		m.saveBeforeExit()
		return nil
	}
	m.opts.Logger.Info("draining: no new connections, requests under way may end", "limit", m.opts.DrainTimeout)
	began := time.Now()
	// One that is still starting may not handle the signal yet, and then the signal ends it.
	confirmed := m.child.Worker() != 0
	m.child.Drain()
	limit := time.NewTimer(m.opts.DrainTimeout)
	defer limit.Stop()
	m.saveBeforeExit()
	killed := m.awaitDrained(limit.C)
	<-m.child.Done()
	m.child.KillWorkers()
	end := m.child.ExitError()
	m.child = nil
	_ = process.Forget(m.opts.RunDir) // the next nuncio would find out by itself
	m.opts.Logger.Info("haproxy ended", "exit_code", end.Code, "after", time.Since(began).Round(time.Millisecond))
	if end.Code > 0 && !killed && confirmed {
		return end
	}
	return nil
}

// awaitDrained returns when haproxy has ended, or has been stopped because the time is over. It reports whether haproxy had to
// be killed for that.
func (m *Manager) awaitDrained(timeout <-chan time.Time) (killed bool) {
	repeat := time.NewTicker(repeatDrain)
	defer repeat.Stop()
	for {
		select {
		case <-m.child.Done():
			return false
		case <-repeat.C:
			// A master loses a signal that comes in its first milliseconds. A second one does no harm, but is logged.
			if m.child.IgnoredDrain() {
				m.child.Drain()
			}
		case <-m.stopNow:
			m.opts.Logger.Warn("drain cut short by a second signal")
			return m.child.Terminate()
		case <-timeout:
			m.opts.Logger.Warn("drain cut short: requests did not end in time", "limit", m.opts.DrainTimeout)
			return m.child.Terminate()
		}
	}
}
