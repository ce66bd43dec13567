package watch

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestWindowDeliversAtOnceAndThenInBursts plays changes at given milliseconds and notes when they are delivered.
// The package is tested from inside here, because the window is nobody else's business.
func TestWindowDeliversAtOnceAndThenInBursts(t *testing.T) {
	steady := func(every, until int) (at []int) {
		for ms := 0; ms <= until; ms += every {
			at = append(at, ms)
		}
		return at
	}
	for name, tt := range map[string]struct{ changes, want []int }{
		"one change":                                    {[]int{0}, []int{0}},
		"two changes far apart":                         {[]int{0, 150}, []int{0, 150}},
		"a change exactly after the quiet spell":        {[]int{0, 100}, []int{0, 100}},
		"a burst is the first change and then the rest": {[]int{0, 10, 20, 30}, []int{0, 130}},
		"two bursts":                                    {[]int{0, 10, 500, 510}, []int{0, 110, 500, 610}},
		"a change soon after a delayed delivery":        {[]int{0, 50, 160}, []int{0, 150, 160}},
		"churn without end is delivered at the maximum": {steady(50, 2000), []int{0, 1050, 2100}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if got := play(tt.changes); !slices.Equal(got, tt.want) {
					t.Errorf("changes at %v are delivered at %v, want %v", tt.changes, got, tt.want)
				}
			})
		})
	}
}

func play(changes []int) (delivered []int) {
	w := window{min: 100 * time.Millisecond, max: time.Second}
	start := time.Now()
	for {
		wait, pending := w.pending(time.Now())
		if pending && wait == 0 {
			delivered = append(delivered, int(time.Since(start).Milliseconds()))
			w.delivered()
			continue
		}
		if len(changes) == 0 && !pending {
			return delivered
		}
		next := time.Hour
		if len(changes) > 0 {
			next = time.Duration(changes[0])*time.Millisecond - time.Since(start)
		}
		if pending && wait < next {
			time.Sleep(wait)
			continue
		}
		time.Sleep(next)
		changes = changes[1:]
		w.change(time.Now())
	}
}

func TestWindowKeepsAnOverdueDeliveryDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := window{min: 100 * time.Millisecond, max: time.Second}
		w.change(time.Now())
		time.Sleep(time.Second) // the reader is busy
		w.change(time.Now())
		if wait, ok := w.pending(time.Now()); !ok || wait != 0 {
			t.Errorf("an overdue delivery is due in %v (%v), want now", wait, ok)
		}
	})
}
