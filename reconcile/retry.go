package reconcile

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"nuncio/reload"
)

// trialShare bounds what trials take of the applier's time, in which changes of services have to wait: the pause is at
// least that many times as long as the last trial was, as far as the longest pause allows.
const trialShare = 10

// schedule says when templates that did not work are tried again. There is one deadline: changes of services may bring
// it forward, never put it off, and never to before floor.
type schedule struct {
	pause *backoff.ExponentialBackOff // after each trial that failed
	dear  *backoff.ExponentialBackOff // after one whose reload failed
	floor time.Time
	took  time.Duration // by the last trial
	due   time.Time     // zero if nothing is
	timer <-chan time.Time
}

func newSchedule(first, most time.Duration) schedule {
	s := schedule{pause: backoff.NewExponentialBackOff(), dear: backoff.NewExponentialBackOff()}
	s.pause.InitialInterval, s.pause.MaxInterval = first, most
	// As long as reload holds such files back, which would only refuse an earlier trial; so it is not random either. Neither
	// a change of services nor the passing of a few seconds is likely to heal what made HAProxy reload in vain.
	s.dear.InitialInterval, s.dear.MaxInterval, s.dear.Multiplier, s.dear.RandomizationFactor = reload.HoldFirst, reload.HoldMost, 2, 0
	s.reset()
	return s
}

// failed plans the trial after one that took that long and that may have cost requests, or not.
func (s *schedule) failed(took time.Duration, dear bool) {
	now := time.Now()
	s.took = took
	if dear {
		s.floor = now.Add(s.dear.NextBackOff())
	}
	s.arm(now.Add(max(s.pause.NextBackOff(), s.least())))
}

func (s *schedule) least() time.Duration { return min(trialShare*s.took, s.pause.MaxInterval) }

// changed is for a change of services, which may be what the templates have been waiting for.
func (s *schedule) changed() {
	soon := time.Now().Add(max(s.pause.InitialInterval, s.least()))
	if s.due.IsZero() || soon.Before(s.due) {
		s.arm(soon)
	}
}

func (s *schedule) arm(due time.Time) {
	if due.Before(s.floor) {
		due = s.floor
	}
	if !due.Equal(s.due) {
		s.due, s.timer = due, time.After(time.Until(due))
	}
}

// disarm is for a trial that begins. What its forerunners have cost is not forgotten.
func (s *schedule) disarm() { s.due, s.timer = time.Time{}, nil }

// reset is for other templates, and for somebody who has changed something.
func (s *schedule) reset() {
	s.disarm()
	s.floor, s.took = time.Time{}, 0
	s.pause.Reset()
	s.dear.Reset()
}
