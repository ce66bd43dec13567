package reconcile

import (
	"maps"
	"math"
	"slices"
	"time"

	"nuncio/internal/catalog"
)

const (
	// shrinkWindow makes one loss of many steps: the leases of one host, or of hosts that lost the store together,
	// end within a third of a lease's time of each other, and several deletes in a row are one mistake. A scale-down
	// that takes longer than this per half of everything is not hindered.
	shrinkWindow = 10 * time.Second
	// shrinkFrom is the number of instances from which losing more than half of them is no everyday event.
	shrinkFrom = 10
)

// Hold says what the shrink guard keeps, and for how long.
type Hold struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Instances counts what the store no longer has and HAProxy keeps; Remaining what the store still has.
	Instances int `json:"instances"`
	Remaining int `json:"remaining"`
	// Services names the services that the kept instances belong to.
	Services []string `json:"services"`
}

// shrinkGuard decides which snapshot is desired when the store suddenly has much less than before: more than half of ten
// or more instances are missing, or the last one. Then it keeps what is missing, beside everything that the store says now,
// until enough of it is back, an operator accepts the loss, or the time is over. Instances that were in drain or maint when
// they went had been taken out on purpose and are never counted or kept.
//
// It has no clock and no goroutine of its own.
type shrinkGuard struct {
	hold time.Duration // 0: never

	newest  *catalog.Snapshot // as the store has it
	missing []departure       // within the window, or since the hold began; not back yet
	since   time.Time         // of the hold; zero while there is none
}

type departure struct {
	record catalog.Record
	at     time.Time
}

// guardEvent is what a step of the guard led to.
type guardEvent string

const (
	guardNone      guardEvent = ""
	guardStarted   guardEvent = "started"
	guardRecovered guardEvent = "recovered" // enough is back
	guardExpired   guardEvent = "expired"   // the time is over
	guardAccepted  guardEvent = "accepted"  // by an operator
)

// take notes a new snapshot of the store.
func (g *shrinkGuard) take(now time.Time, next *catalog.Snapshot) guardEvent {
	if g.newest != nil && g.hold > 0 {
		for _, r := range next.Missing(g.newest) {
			if r.Instance.State == catalog.StateReady {
				g.missing = append(g.missing, departure{r, now})
			}
		}
	}
	g.newest = next
	g.missing = slices.DeleteFunc(g.missing, func(d departure) bool {
		return next.Service(d.record.Service).Has(d.record.Instance.Name) || !g.holding() && now.Sub(d.at) > shrinkWindow
	})
	switch exceeded := g.exceeded(); {
	case exceeded && !g.holding():
		g.since = now
		return guardStarted
	case !exceeded && g.holding():
		return g.end(guardRecovered)
	}
	return guardNone
}

// end ends the hold.
func (g *shrinkGuard) end(why guardEvent) guardEvent {
	g.since, g.missing = time.Time{}, nil
	return why
}

func (g *shrinkGuard) holding() bool { return !g.since.IsZero() }

// deadline is when the hold ends at the latest; zero while there is none.
func (g *shrinkGuard) deadline() time.Time {
	if !g.holding() {
		return time.Time{}
	}
	return g.since.Add(g.hold)
}

// desired is what the guard lets through.
func (g *shrinkGuard) desired() *catalog.Snapshot {
	if !g.holding() {
		return g.newest
	}
	records := make([]catalog.Record, 0, len(g.missing))
	for _, d := range g.missing {
		records = append(records, d.record)
	}
	return g.newest.With(records)
}

// exceeded compares what is missing with what remains. New instances count as remaining: ten that are replaced by ten
// others at once are a deployment.
func (g *shrinkGuard) exceeded() bool {
	missing := len(g.missing)
	if missing == 0 {
		return false
	}
	remaining := g.remaining(missing) // a full count would visit every instance there is
	return remaining == 0 || remaining+missing >= shrinkFrom && missing > remaining
}

// remaining counts what the store still has, up to most.
func (g *shrinkGuard) remaining(most int) int {
	n := 0
	for _, svc := range g.newest.Services {
		for _, inst := range svc.Instances {
			if inst.State == catalog.StateReady {
				n++
			}
			if n == most {
				return n
			}
		}
	}
	return n
}

// report is nil while nothing is held.
func (g *shrinkGuard) report() *Hold {
	if !g.holding() {
		return nil
	}
	names := map[string]bool{}
	for _, d := range g.missing {
		names[d.record.Service] = true
	}
	return &Hold{
		Since: g.since, Until: g.deadline(), Instances: len(g.missing), Remaining: g.remaining(math.MaxInt),
		Services: slices.Sorted(maps.Keys(names)),
	}
}
