package reconcile

import (
	"errors"
	"time"

	"nuncio/reload"
)

// reloadPace keeps reloads apart: the first one comes at once, and what needs one soon after it is gathered. Each reload
// leaves an old process behind for as long as its clients stay, and no command can change HAProxy meanwhile. What commands
// can do waits for nothing, and neither does an operator's order.
type reloadPace struct {
	interval time.Duration
	next     time.Time // the earliest time of the next one
}

// note takes the outcome of an apply that began then. A reload that takes longer than the interval is followed by a pause as
// long, so that commands have at least half of the time.
func (p *reloadPace) note(began time.Time, result reload.Result, err error) {
	var failed *reload.ReloadError
	if p.interval == 0 || result.Outcome != reload.Reloaded && !errors.As(err, &failed) {
		return
	}
	now := time.Now()
	p.next = now.Add(max(p.interval, now.Sub(began)))
}

// paced keeps an attempt, if it needs a reload, from coming too early.
func (r *Reconciler) paced(t *retry) {
	if t.noReload.Before(r.pace.next) {
		t.noReload = r.pace.next
	}
}
