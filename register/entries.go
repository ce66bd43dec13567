package register

import (
	"errors"
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
	until   time.Time // how long that one may hold it in drain
	retry   time.Time // not inspected again before
}

// event notes what one event means. Only die and kill say all there is to know; everything else makes the
// facts stale.
func (f *follower) event(ev Event) {
	f.opts.Metrics.events.WithLabelValues(actionLabel(ev.Action)).Inc()
	f.step++
	if ev.Time.After(f.since) {
		f.since = ev.Time.Add(1) // Docker's "since" is inclusive
	}
	e := f.entries[ev.ID]
	if e == nil {
		e = &entry{}
		f.entries[ev.ID] = e
	}
	e.changed, e.stale, e.retry = f.step, true, time.Time{}
	switch ev.Action {
	case "die":
		e.died = ev.Time
	case "kill":
		e.killed = ev
		e.until = time.Now().Add(f.opts.StopWindow - f.age(ev))
	}
}

// age is how long ago an event that is replayed has happened; any other has happened just now. Docker stamps events
// with its engine's clock, and no request that a read-only proxy lets through tells what that clock says now. So
// this clock is taken, the same one unless the engine is remote. To keep a difference of the two from cutting
// the drain of a stop that happens now, only what comes right behind the subscription counts as replayed.
func (f *follower) age(ev Event) time.Duration {
	if time.Since(f.subscribed) > replayTime {
		return 0
	}
	return max(0, time.Since(ev.Time))
}

// marks are the entries with nothing but what events alone tell. A new connection asks only for the events that came
// after the last one: without these, a container that is stopping would seem ready again.
func marks(entries map[string]*entry) map[string]*entry {
	marked := map[string]*entry{}
	for id, e := range entries {
		if !e.died.IsZero() || !e.killed.Time.IsZero() {
			marked[id] = &entry{died: e.died, killed: e.killed, until: e.until}
		}
	}
	return marked
}

func (f *follower) result(r result) error {
	if r.found != nil {
		f.looking = false
		f.address.learn(*r.found, f.log)
		return nil
	}
	if r.list {
		f.listing = false
		if r.err != nil {
			return r.err
		}
		f.listed(r)
		return nil
	}
	f.busy--
	e := f.entries[r.id]
	if e == nil {
		return nil
	}
	e.asking = false
	switch {
	case e.stale: // an event came meanwhile: the answer may be older than it
	case errors.Is(r.err, errGone):
		delete(f.entries, r.id)
	case r.err != nil:
		e.stale, e.retry = true, time.Now().Add(time.Second)
		f.opts.Metrics.inspectErrors.Inc()
		f.say(r.id, "inspect", r.err.Error(), Skipped{Container: f.name(r.id), ContainerID: r.id[:min(12, len(r.id))], Reason: r.err.Error()})
	case r.facts.Status == "running" || r.facts.Status == "paused" || r.facts.Status == "restarting":
		e.facts = r.facts
	default:
		delete(f.entries, r.id)
	}
	return nil
}

// listed compares a complete list with what is known.
func (f *follower) listed(r result) {
	f.opts.Metrics.sweeps.Inc()
	f.opts.Metrics.dockerUp.Set(1)
	if !f.answered {
		f.answered = true
		f.log.Info("following docker", "containers", len(r.listed))
	}
	seen := map[string]bool{}
	for _, l := range r.listed {
		seen[l.ID] = true
		e := f.entries[l.ID]
		if e == nil {
			e = &entry{changed: r.step}
			f.entries[l.ID] = e
		}
		if e.digest != l.Digest {
			e.digest, e.stale = l.Digest, true
		}
	}
	for id, e := range f.entries {
		if !seen[id] && e.changed <= r.step { // else it may be younger than the list
			delete(f.entries, id)
		}
	}
}

// wake returns a channel that fires when time alone changes something: an inspection or a lookup may be tried again,
// or a container outlives its stop signal.
func (f *follower) wake() <-chan time.Time {
	var next time.Time
	now := time.Now()
	sooner := func(t time.Time) {
		if t.After(now) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	sooner(f.address.due)
	for _, e := range f.entries {
		sooner(e.retry)
		sooner(e.until)
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next) + time.Millisecond)
}

// decide publishes the set that the present facts lead to.
func (f *follower) decide() {
	if !f.answered || !f.address.known {
		return // before the first list, absence means nothing; and an address that nobody looked for is not missing
	}
	now := time.Now()
	var containers []*Container
	unknown := map[string]bool{}
	for id, e := range f.entries {
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
	desired := f.opts.Rules.decideAll(containers, f.address.Advertise, &f.memo)
	desired.Unknown = unknown
	f.explain(containers, desired)
	f.publish(Published{Desired: &desired, Advertise: f.address.String()})
}
