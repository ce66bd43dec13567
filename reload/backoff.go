package reload

import (
	"time"

	exponential "github.com/cenkalti/backoff/v5"
)

const (
	restartMin = 100 * time.Millisecond
	restartMax = 5 * time.Second
	// repairMin and repairMax bound the pause before a worker whose state is unknown is reloaded. A reload that HAProxy
	// cannot do may close every listener for two seconds.
	repairMin = 2 * time.Second
	repairMax = 5 * time.Minute
)

// timer is a timer that may be off. One goroutine uses it.
type timer struct {
	timer *time.Timer
}

// in lets it fire after d.
func (t *timer) in(d time.Duration) {
	t.disarm()
	t.timer = time.NewTimer(d)
}

func (t *timer) disarm() {
	if t.timer != nil {
		t.timer.Stop()
	}
	t.timer = nil
}

func (t *timer) armed() bool { return t.timer != nil }

// c fires when the time is over; nil, which blocks, while the timer is off.
func (t *timer) c() <-chan time.Time {
	if t.timer == nil {
		return nil
	}
	return t.timer.C
}

// backoff is a timer with a pause that doubles from one time to the next.
type backoff struct {
	timer
	growth *exponential.ExponentialBackOff
}

func newBackoff(first, limit time.Duration) backoff {
	b := exponential.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = first, limit, 2, 0.2
	b.Reset()
	return backoff{growth: b}
}

// arm starts the next, longer pause.
func (b *backoff) arm() { b.in(b.growth.NextBackOff()) }

// reset ends the pause and makes the next one short again.
func (b *backoff) reset() {
	b.disarm()
	b.growth.Reset()
}
