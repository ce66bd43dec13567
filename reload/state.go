package reload

import (
	"slices"
	"time"
)

// State names what a Manager is doing.
type State string

// The states of a Manager.
const (
	// Starting: Run is setting up, or haproxy is being started with the last good generation.
	Starting State = "starting"
	// Waiting: Apply has not been called yet. The last good generation may run.
	Waiting State = "waiting"
	// Applying: files are on their way into HAProxy by a start or a reload.
	Applying State = "applying"
	// Running: HAProxy runs the files of the last Apply, and they are on disk or about to be.
	Running State = "running"
	// Degraded: the last Apply failed, or haproxy has ended; see Status.LastError.
	Degraded State = "degraded"
	// Draining: Run's context has ended, requests under way may end.
	Draining State = "draining"
	// Stopped: Run has returned. After a drain no haproxy runs, after HandOver it serves on.
	Stopped State = "stopped"
)

// transitions are the changes of state that are possible. docs/architecture.md draws them, and a test compares the two.
var transitions = map[State][]State{
	Starting: {Waiting, Running, Degraded, Draining, Stopped},
	Waiting:  {Starting, Applying, Running, Degraded, Draining, Stopped},
	Applying: {Waiting, Running, Degraded, Draining},
	Running:  {Applying, Degraded, Draining, Stopped},
	Degraded: {Starting, Waiting, Applying, Running, Draining, Stopped},
	Draining: {Stopped},
	Stopped:  {},
}

func states() []State {
	return []State{Starting, Waiting, Running, Applying, Degraded, Draining, Stopped}
}

// setState is the only function that changes the state. also changes more of the status in the same step; it may be nil.
func (m *Manager) setState(next State, also func(*Status)) {
	now := m.status.get().State
	if now != next && !slices.Contains(transitions[now], next) {
		m.opts.Logger.Error("unexpected change of state", "from", string(now), "to", string(next))
	}
	m.publish(func(s *Status) {
		if now != next {
			s.State, s.Since = next, time.Now()
		}
		if also != nil {
			also(s)
		}
	})
}

// settled returns the state between two events.
func (m *Manager) settled() State {
	switch {
	case m.desired == nil && (m.child != nil || m.running.generation.Number == 0):
		return Waiting
	case m.child != nil && m.desired != nil && m.running.confirmed && m.running.files.Equal(m.desired.Files) &&
		m.saver.err == nil && !m.filesLost:
		return Running
	}
	return Degraded
}

// updateState publishes the state between two events, if it or what belongs to it has changed.
func (m *Manager) updateState() {
	next, old := m.settled(), m.status.get()
	healthy := m.child != nil && next != Degraded
	if old.State == next && old.Leaving == len(m.worker.leaving) && (!healthy || old.LastError == "") {
		return
	}
	m.setState(next, func(s *Status) {
		if healthy {
			s.LastError, s.LastErrorTime = "", time.Time{}
		}
	})
}

// publish changes the status that others see; the facts about processes are always brought up to date.
func (m *Manager) publish(change func(*Status)) {
	m.status.update(func(s *Status) {
		change(s)
		s.MasterPid, s.WorkerPid = 0, 0
		if m.child != nil {
			s.MasterPid, s.WorkerPid = m.child.Pid(), m.child.Worker()
		}
		g := m.running.generation
		s.AppliedRevision, s.AppliedGeneration, s.AppliedDigest = g.Revision, g.Number, g.Digest
		s.Ready = m.child != nil && m.running.applied && !m.running.unknown && s.State != Draining
		s.Leaving = len(m.worker.leaving)
	})
}

// record publishes one finished attempt.
func (m *Manager) record(r Result) {
	m.metrics.applies.WithLabelValues(string(r.Outcome)).Inc()
	m.metrics.duration.WithLabelValues(string(r.Mode)).Observe(r.Duration.Seconds())
	m.publish(func(s *Status) {
		if m.desired != nil {
			s.DesiredRevision, s.DesiredDigest = m.desired.Revision, m.desired.Files.Digest()
		}
		if len(s.Applies) == keepApplies {
			s.Applies = s.Applies[1:]
		}
		s.Applies = append(s.Applies, r)
		if !r.Failed() {
			s.AppliedTime = time.Now()
		}
		if r.Outcome == Reloaded {
			s.OldWorkers++ // until the next count
		}
	})
	switch r.Outcome {
	case Started, Reloaded:
		m.commandLog.flush()
		m.opts.Logger.Info("applied", "result", string(r.Outcome), "mode", string(r.Mode), "revision", r.Revision, "generation", r.Generation,
			"duration", r.Duration.Round(time.Millisecond), "reason", r.Reason)
	case Runtime:
		m.commandLog.add(r)
	default: // the caller of Apply logs an error
		m.opts.Logger.Debug("not applied", "result", string(r.Outcome), "revision", r.Revision, "reason", r.Reason)
	}
}

// reportError logs an error about the haproxy process and publishes it.
func (m *Manager) reportError(message string, err error) {
	text := message + ": " + err.Error()
	if m.status.get().LastError != text {
		m.opts.Logger.Error("haproxy supervision failed", "what", message, "err", err)
	}
	m.publish(func(s *Status) { s.LastError, s.LastErrorTime = text, time.Now() })
}
