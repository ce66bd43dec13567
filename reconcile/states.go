package reconcile

import "time"

// State names what a Reconciler is doing.
type State string

// The states of a Reconciler.
const (
	// StateWaiting: there are no records or no templates yet, or their first attempt is under way.
	StateWaiting State = "waiting"
	// StateFollowing: HAProxy runs what the newest templates make of the newest records.
	StateFollowing State = "following"
	// StateFallback: the newest templates do not work; the last good ones follow the records.
	StateFallback State = "fallback"
	// StateFailing: HAProxy does not run what is desired, because rendering or applying it failed; it is retried.
	StateFailing State = "failing"
	// StateRolledBack: an operator went back to an earlier template set, which follows the records.
	StateRolledBack State = "rolled_back"
	// StateFrozen: an operator froze the files; nothing is followed.
	StateFrozen State = "frozen"
)

// event is what can change the state.
type event string

const (
	eventApplied      event = "applied"
	eventNewestFailed event = "applied with the last good templates"
	eventFailed       event = "failed"
	eventRollback     event = "rollback"
	eventFreeze       event = "freeze"
	eventResume       event = "resume"
)

// transitions is the whole state machine: in a state, an event that is not listed changes nothing. docs/architecture.md
// shows the same as a diagram.
var transitions = map[State]map[event]State{
	StateWaiting: {
		eventApplied: StateFollowing, eventNewestFailed: StateFallback, eventFailed: StateFailing,
		eventRollback: StateRolledBack, eventFreeze: StateFrozen,
	},
	StateFollowing: {
		eventNewestFailed: StateFallback, eventFailed: StateFailing, eventRollback: StateRolledBack, eventFreeze: StateFrozen,
	},
	StateFallback: {
		eventApplied: StateFollowing, eventFailed: StateFailing, eventRollback: StateRolledBack, eventFreeze: StateFrozen,
	},
	StateFailing: {
		eventApplied: StateFollowing, eventNewestFailed: StateFallback, eventRollback: StateRolledBack, eventFreeze: StateFrozen,
	},
	StateRolledBack: {eventResume: StateWaiting, eventFreeze: StateFrozen},
	StateFrozen:     {eventResume: StateWaiting, eventRollback: StateRolledBack},
}

// on is the only function that changes the state.
func (r *Reconciler) on(e event) {
	next, changes := transitions[r.state][e]
	if !changes {
		return
	}
	r.opts.Logger.Debug("state", "state", string(next), "event", string(e))
	r.state = next
	r.update(func(s *Status) { s.State, s.Since = next, time.Now() })
}
