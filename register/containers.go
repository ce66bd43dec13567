package register

import (
	"errors"
	"strings"
	"syscall"
	"time"
)

// entry is what is known about one container.
type entry struct {
	digest  string
	facts   *Container // nil until the first inspection
	stale   bool       // the facts may be out of date
	asking  bool
	changed int       // the step of its last event
	died    time.Time // of its last die event, by Docker's clock
	killed  Event     // its last kill event
	until   time.Time // how long that one may keep it in drain
	retry   time.Time // not inspected again before
	logged  logged
}

// event notes what one event means. Only die and kill say all there is to know; everything else makes the
// facts stale.
func (d *Docker) event(ev Event) {
	action, _, _ := strings.Cut(ev.Action, ":") // Docker writes "health_status: healthy"; the label has to stay bounded
	d.opts.Metrics.events.WithLabelValues(action).Inc()
	d.step++
	if ev.Time.After(d.since) {
		d.since = ev.Time.Add(1) // Docker's "since" is inclusive
	}
	e := d.entries[ev.ID]
	if e == nil {
		e = &entry{}
		d.entries[ev.ID] = e
	}
	e.changed, e.stale, e.retry = d.step, true, time.Time{}
	switch ev.Action {
	case "die":
		e.died = ev.Time
	case "kill":
		e.killed = ev
		e.until = time.Now().Add(d.opts.StopWindow - d.age(ev))
	}
}

// age returns how long ago a replayed event happened, and 0 for any other. Docker stamps events with its engine's clock,
// and none of the requests that a read-only proxy lets through returns the time. So this host's clock is used, which is
// the same one unless the engine is remote. Only events right after the subscription count as replayed: otherwise a
// difference between the clocks would shorten the drain of a container that is stopped now.
func (d *Docker) age(ev Event) time.Duration {
	if time.Since(d.subscribed) > replayTime {
		return 0
	}
	return max(0, time.Since(ev.Time))
}

// handle notes a result and those that wait behind it, so that the start of many containers leads to few decisions.
func (d *Docker) handle(note func() error) error {
	for {
		if err := note(); err != nil {
			return err
		}
		select {
		case note = <-d.results:
		default:
			return nil
		}
	}
}

func (d *Docker) inspected(id string, facts *Container, err error) {
	d.inspecting--
	e := d.entries[id]
	if e == nil {
		return
	}
	e.asking = false
	switch {
	case e.stale: // an event came meanwhile: the answer may be older than it
	case err != nil && !errors.Is(err, errGone):
		e.stale, e.retry = true, time.Now().Add(inspectPause)
		d.opts.Metrics.inspectErrors.Inc()
		name := shortID(id)
		if e.facts != nil {
			name = e.facts.Name
		}
		if e.logged.inspectError != err.Error() {
			e.logged.inspectError = err.Error()
			d.opts.Log.Info("container skipped", "container", name, "container_id", shortID(id), "reason", err.Error())
		}
	case err == nil && (facts.Status == "running" || facts.Status == "paused" || facts.Status == "restarting"):
		e.facts = facts
	default:
		delete(d.entries, id)
	}
}

// resynced compares a complete list, asked for at a step, with what is known.
func (d *Docker) resynced(step int, listed []Listed) {
	d.opts.Metrics.resyncs.Inc()
	d.opts.Metrics.dockerUp.Set(1)
	if !d.listed {
		d.listed = true
		d.opts.Log.Info("following docker", "containers", len(listed))
	}
	seen := map[string]bool{}
	for _, l := range listed {
		seen[l.ID] = true
		e := d.entries[l.ID]
		if e == nil {
			e = &entry{changed: step}
			d.entries[l.ID] = e
		}
		if e.digest != l.Digest {
			e.digest, e.stale = l.Digest, true
		}
	}
	for id, e := range d.entries {
		if !seen[id] && e.changed <= step { // otherwise it may be younger than the list
			delete(d.entries, id)
		}
	}
}

// wake returns a channel that fires when time alone changes something: an inspection may be tried again, or a container
// outlives its stop signal.
func (d *Docker) wake() <-chan time.Time {
	var next time.Time
	now := time.Now()
	for _, e := range d.entries {
		for _, at := range []time.Time{e.retry, e.until} {
			if at.After(now) && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next) + time.Millisecond)
}

// decide publishes the set that the present facts lead to.
func (d *Docker) decide() {
	if !d.listed {
		return // before the first list, absence means nothing
	}
	now := time.Now()
	var containers []*Container
	unknown := map[string]bool{}
	for id, e := range d.entries {
		switch {
		case e.facts == nil:
			// Even after a die event: one that was replayed may be about an earlier life of the container.
			unknown[id] = true
		case !e.died.IsZero() && !e.died.Before(e.facts.StartedAt):
			// Dead, whatever an inspection under way will say.
		default:
			stopping := e.killed.Time.After(e.facts.StartedAt) && now.Before(e.until) &&
				endsContainer(syscall.Signal(e.killed.Signal), e.facts.StopSignal)
			if stopping != e.facts.Stopping {
				changed := *e.facts // published facts are not changed
				changed.Stopping = stopping
				e.facts = &changed
			}
			containers = append(containers, e.facts)
		}
	}
	desired := d.opts.Rules.Decide(containers, d.address.Advertise)
	desired.Unknown = unknown
	d.logReasons(containers, desired)
	d.publish(Published{Desired: &desired, Advertise: d.address.String()})
}
