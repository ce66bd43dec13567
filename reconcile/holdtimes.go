package reconcile

import "time"

// holdTimes says when the hold of a guard ends.
type holdTimes struct {
	hold    time.Duration // 0: never
	since   time.Time     // of the hold; zero while there is none
	settled time.Time     // when the hold ends because enough is back; zero while too much is missing
}

func (h *holdTimes) holding() bool { return !h.since.IsZero() }

// deadline is when the hold ends if nothing more happens; zero while there is none.
func (h *holdTimes) deadline() time.Time {
	switch until := h.since.Add(h.hold); {
	case !h.holding():
		return time.Time{}
	case !h.settled.IsZero() && h.settled.Before(until):
		return h.settled
	default:
		return until
	}
}

// over says why a hold ends now; guardNone if it does not.
func (h *holdTimes) over(now time.Time) guardEvent {
	switch {
	case !isDue(h.deadline(), now):
		return guardNone
	case isDue(h.settled, now):
		return guardRecovered
	default:
		return guardExpired
	}
}
