package reconcile

import (
	"errors"
	"time"

	"nuncio/reload"
)

// retry says when one thing (a template set, frozen files) is attempted again. It is the one policy for everything that
// is applied; reload repeats nothing by itself.
//
//	what failed                           | first pause | growth | limit | besides
//	--------------------------------------|-------------|--------|-------|-------------------------------------------
//	what serves: rejected, or failed      | 0.5 s       | x 1.5  | 30 s  | other files are attempted at once
//	  before HAProxy was reloaded         |             |        |       |
//	new templates, while others serve     | 1 s         | x 1.5  | 1 min | at least 10 x the last attempt; a change of
//	                                      |             |        |       | services brings it forward to 1 s
//	new templates that do not render      | -           | -      | -     | 1 s after the next change of services
//	a reload (it may have cost requests)  | 10 s        | x 2    | 5 min | meanwhile NoReload: changes that need no
//	                                      |             |        |       | reload are applied, others wait
//	nothing: a reload is needed too soon  | the rest    | -      | -     | meanwhile NoReload, as above; see reloadPace
//	  after the last one                  |             |        |       |
//	HAProxy runs something else again     | at once     | -      | -     | not within 1 s of the last attempt, nor
//	  (Applier.Outdated)                  |             |        |       | before a pause of the above is over
//
// A success resets the pauses, of reloads only one by a reload or a start. So do a template edit, HUP and an order of the
// operator (rollback, freeze, resume). No pause is random: nothing but this HAProxy is asked.
type retry struct {
	due      time.Time // of the next attempt; zero if none is planned
	noReload time.Time // HAProxy must not be reloaded before

	failures pause
	reloads  pause
	last     time.Time // end of the last attempt
	took     time.Duration
}

// trialShare bounds what trials of new templates take of the applier's time, in which changes of services have to wait: a
// pause is at least that many times as long as the last trial was.
const trialShare = 10

var (
	servingPauses = pauses{first: 500 * time.Millisecond, growth: 1.5, most: 30 * time.Second}
	trialPauses   = pauses{first: time.Second, growth: 1.5, most: time.Minute}
	reloadPauses  = pauses{first: 10 * time.Second, growth: 2, most: 5 * time.Minute}
)

const outdatedPause = time.Second

// pauses bound growing pauses.
type pauses struct {
	first, most time.Duration
	growth      float64
}

// pause is the last of a row of growing pauses; 0 before the first.
type pause time.Duration

func (p *pause) next(of pauses) time.Duration {
	*p = pause(min(max(of.first, time.Duration(float64(*p)*of.growth)), of.most))
	return time.Duration(*p)
}

// isDue reports whether a planned time has come; zero is none.
func isDue(planned, now time.Time) bool { return !planned.IsZero() && !now.Before(planned) }

// ended is for an attempt that ended now with err, which may be nil. While something else serves, a failed one is a trial.
func (t *retry) ended(began time.Time, result reload.Result, err error, trial bool) {
	now := time.Now()
	t.last, t.took, t.due = now, now.Sub(began), time.Time{}
	if err == nil {
		t.failures = 0
		if result.Outcome == reload.Reloaded || result.Outcome == reload.Started {
			t.reloads, t.noReload = 0, time.Time{}
		}
		return
	}
	var unrendered *renderError
	var reloading *reload.ReloadError
	switch {
	case errors.As(err, &unrendered): // until something changes
	case errors.Is(err, reload.ErrReloadNeeded):
		t.due = t.noReload
	case errors.As(err, &reloading):
		t.noReload = now.Add(t.reloads.next(reloadPauses))
		t.due = t.noReload
	case trial:
		t.plan(now, t.failures.next(trialPauses))
	default:
		t.due = now.Add(t.failures.next(servingPauses))
	}
}

// plan plans a trial of new templates.
func (t *retry) plan(now time.Time, pause time.Duration) {
	t.due = now.Add(max(pause, min(trialShare*t.took, trialPauses.most)))
	if t.due.Before(t.noReload) {
		t.due = t.noReload
	}
}

// servicesChanged is for a change of services, which may be what a failed trial has been waiting for.
func (t *retry) servicesChanged(now time.Time) {
	before := t.due
	if t.plan(now, trialPauses.first); !before.IsZero() && before.Before(t.due) {
		t.due = before
	}
}

// outdated plans an attempt to bring back what was confirmed.
func (t *retry) outdated(now time.Time) {
	if !t.due.IsZero() {
		return // a pause is not over, or it is due already
	}
	if t.due = now; now.Sub(t.last) < outdatedPause {
		t.due = t.last.Add(outdatedPause)
	}
}
