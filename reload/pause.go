package reload

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	restartMin = 100 * time.Millisecond
	restartMax = 5 * time.Second
)

// pause is a growing delay and the timer that waits for it. Only one goroutine uses it.
type pause struct {
	growth *backoff.ExponentialBackOff
	timer  *time.Timer
	until  time.Time
}

func newPause(first, limit time.Duration) pause {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = first, limit, 2, 0.2
	b.Reset()
	return pause{growth: b}
}

// arm starts the next, longer wait; at least floor.
func (p *pause) arm(floor time.Duration) {
	p.in(max(p.growth.NextBackOff(), floor))
}

// in waits for exactly d.
func (p *pause) in(d time.Duration) {
	p.disarm()
	p.timer, p.until = time.NewTimer(d), time.Now().Add(d)
}

func (p *pause) disarm() {
	if p.timer != nil {
		p.timer.Stop()
	}
	p.timer, p.until = nil, time.Time{}
}

func (p *pause) armed() bool { return p.timer != nil }

// reset ends the wait and makes the next one short again.
func (p *pause) reset() {
	p.disarm()
	p.growth.Reset()
}

// c fires when the wait is over; nil, which blocks, when there is none.
func (p *pause) c() <-chan time.Time {
	if p.timer == nil {
		return nil
	}
	return p.timer.C
}
