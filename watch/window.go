package watch

import "time"

// window decides when a change is delivered: at once after a quiet spell of min, otherwise when nothing has changed
// for min, but never later than max after the first change that is not delivered.
type window struct {
	min, max time.Duration

	first time.Time // the first undelivered change; zero when there is none
	last  time.Time // the newest change
	due   time.Time // when the undelivered changes must be delivered
}

// change records a change.
func (w *window) change(now time.Time) {
	quiet := w.last.IsZero() || now.Sub(w.last) >= w.min
	w.last = now
	switch {
	case w.first.IsZero() && quiet:
		w.first, w.due = now, now
	case w.first.IsZero():
		w.first = now
		w.due = now.Add(min(w.min, w.max))
	case w.due.After(now):
		w.due = now.Add(w.min)
		if latest := w.first.Add(w.max); w.due.After(latest) {
			w.due = latest
		}
	}
}

// pending reports whether there is anything to deliver, and how long to wait for it; 0 means now.
func (w *window) pending(now time.Time) (time.Duration, bool) {
	if w.first.IsZero() {
		return 0, false
	}
	return max(0, w.due.Sub(now)), true
}

// delivered records that everything has been delivered.
func (w *window) delivered() { w.first = time.Time{} }
