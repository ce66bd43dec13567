package reload

import (
	"context"
	"time"
)

// publish changes the status that others see; the facts about processes are always brought up to date.
func (m *Manager) publish(f func(*Status)) {
	m.board.update(func(s *Status) {
		f(s)
		s.MasterPid, s.WorkerPid = 0, 0
		if m.child != nil {
			s.MasterPid, s.WorkerPid = m.child.child.Pid(), m.child.worker
		}
		s.AppliedRevision = m.running.generation.Revision
		s.AppliedGeneration, s.AppliedDigest = m.running.generation.Number, m.running.generation.Digest
		s.Ready = m.child != nil && m.running.submitted && m.running.confirmed && s.State != Draining
		s.Retry = m.retry.until
		s.Leaving = len(m.live.ghosts)
	})
}

func (m *Manager) enter(state State) {
	if m.board.get().State == state {
		m.publish(func(*Status) {})
		return
	}
	m.opts.Logger.Debug("state", "state", string(state))
	m.publish(func(s *Status) { s.State, s.Since = state, time.Now() })
}

// settle finds the state between two events.
func (m *Manager) settle() {
	switch {
	case m.desired == nil && m.child == nil && m.running.generation.Number == 0,
		m.desired == nil && m.child != nil:
		if m.child != nil {
			m.publish(func(s *Status) { s.LastError, s.LastErrorTime = "", time.Time{} })
		}
		m.enter(Waiting)
	case m.child != nil && m.running.confirmed && m.desired != nil && m.running.files.Equal(m.desired.Files) && m.saver.err == nil:
		m.publish(func(s *Status) { s.LastError, s.LastErrorTime = "", time.Time{} })
		m.enter(Running)
	default:
		m.enter(Degraded)
	}
}

// record publishes one finished attempt.
func (m *Manager) record(a Result) {
	m.metrics.applies.WithLabelValues(string(a.Outcome)).Inc()
	m.metrics.duration.WithLabelValues(string(a.Mode)).Observe(a.Duration.Seconds())
	m.publish(func(s *Status) { // in one step: nobody may see that it runs and not how it came there
		if m.desired != nil {
			s.DesiredRevision, s.DesiredDigest = m.desired.Revision, m.desired.Files.Digest()
		}
		if len(s.Applies) == keepApplies {
			s.Applies = s.Applies[1:]
		}
		s.Applies = append(s.Applies, a)
		if !a.bad() {
			s.AppliedTime = time.Now()
		}
		if a.Outcome == Reloaded {
			s.OldWorkers++ // until the next count
		}
	})
	switch a.Outcome {
	case Started, Reloaded:
		m.opts.Logger.Info("applied", "result", string(a.Outcome), "mode", string(a.Mode), "revision", a.Revision, "generation", a.Generation,
			"duration", a.Duration.Round(time.Millisecond), "reason", a.Reason)
	case Runtime:
		m.opts.Logger.Info("applied", "result", string(a.Outcome), "mode", string(a.Mode), "revision", a.Revision, "servers", a.Servers,
			"commands", a.Commands, "duration", a.Duration.Round(10*time.Microsecond))
	case Unchanged:
		m.opts.Logger.Debug("unchanged", "revision", a.Revision, "generation", a.Generation)
	}
}

// report logs an error about the haproxy process and publishes it.
func (m *Manager) report(message string, err error) {
	text := message + ": " + err.Error()
	if m.board.get().LastError != text {
		m.opts.Logger.Error("haproxy is not as it should be", "what", message, "err", err)
	}
	m.publish(func(s *Status) { s.LastError, s.LastErrorTime = text, time.Now() })
}

// countOldWorkers asks the master how many replaced workers there still are.
func (m *Manager) countOldWorkers(ctx context.Context) {
	if m.child == nil || m.board.get().OldWorkers == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	p, err := m.child.processes(ctx)
	if err != nil {
		return // the next poll asks again
	}
	n := 0
	for _, w := range p.OldWorkers {
		if w.Pid != m.child.worker { // 3.1 and later list the survivor of a failed reload here
			n++
		}
	}
	m.publish(func(s *Status) { s.OldWorkers = n })
}
