package reconcile

import (
	"maps"
	"math"
	"slices"
	"time"

	"nuncio/internal/catalog"
)

const (
	// DefaultHold is how long the guard keeps instances that are gone from the store.
	DefaultHold = time.Minute
	// guardWindow makes one loss of many steps: the leases of one host, or of hosts that lost the store together,
	// end within a third of a lease's time of each other, and several deletes in a row are one mistake. A scale-down
	// that takes longer than this per half of everything is not hindered.
	guardWindow = 10 * time.Second
	// guardFrom is the number of instances from which losing more than half of them is no everyday event.
	guardFrom = 10
)

// Hold says what the guard keeps, and for how long.
type Hold struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Instances counts what the store no longer has and HAProxy keeps; Remaining what the store still has.
	Instances int `json:"instances"`
	Remaining int `json:"remaining"`
	// Services names the services that the kept instances belong to.
	Services []string `json:"services"`
}

// guard decides which snapshot is wanted when the store's suddenly has much less than before: more than half of ten or
// more instances gone, or the last one. Then it keeps what is gone, beside everything that the store says now, until
// enough of it is back, an operator accepts the loss, or the time is over. Instances that were in drain or maint when
// they went had been taken out on purpose and are never counted or kept.
//
// It has no clock and no goroutine of its own.
type guard struct {
	hold time.Duration // 0: never

	newest *catalog.Snapshot // as the store has it
	gone   []departure       // within the window, or since the hold began; not back yet
	since  time.Time         // of the hold; zero while there is none
}

type departure struct {
	record catalog.Record
	at     time.Time
}

// event is what a step of the guard led to.
type event string

const (
	nothing   event = ""
	began     event = "began"
	recovered event = "recovered" // enough is back
	expired   event = "expired"   // the time is over
	accepted  event = "accepted"  // by an operator
)

// take notes a new snapshot of the store.
func (g *guard) take(now time.Time, next *catalog.Snapshot) event {
	if g.newest != nil && g.hold > 0 {
		for _, r := range next.Missing(g.newest) {
			if r.Instance.State == catalog.StateReady {
				g.gone = append(g.gone, departure{r, now})
			}
		}
	}
	g.newest = next
	g.gone = slices.DeleteFunc(g.gone, func(d departure) bool {
		return next.Service(d.record.Service).Has(d.record.Instance.Name) || !g.holding() && now.Sub(d.at) > guardWindow
	})
	switch shrunk := g.shrunk(); {
	case shrunk && !g.holding():
		g.since = now
		return began
	case !shrunk && g.holding():
		return g.end(recovered)
	}
	return nothing
}

// tick is for the moment that deadline names.
func (g *guard) tick(now time.Time) event {
	if !g.holding() || now.Before(g.deadline()) {
		return nothing
	}
	return g.end(expired)
}

// accept takes the loss as meant.
func (g *guard) accept() event {
	if !g.holding() {
		return nothing
	}
	return g.end(accepted)
}

func (g *guard) end(why event) event {
	g.since, g.gone = time.Time{}, nil
	return why
}

func (g *guard) holding() bool       { return !g.since.IsZero() }
func (g *guard) deadline() time.Time { return g.since.Add(g.hold) }

// wanted is what the guard lets through.
func (g *guard) wanted() *catalog.Snapshot {
	if !g.holding() {
		return g.newest
	}
	records := make([]catalog.Record, 0, len(g.gone))
	for _, d := range g.gone {
		records = append(records, d.record)
	}
	return g.newest.With(records)
}

// shrunk compares what is gone with what is left. New instances count as left: ten that are replaced by ten others at
// one stroke are a deployment.
func (g *guard) shrunk() bool {
	if len(g.gone) == 0 {
		return false
	}
	left := g.remaining(len(g.gone)) // to know more would take a look at every instance there is
	return left == 0 || left+len(g.gone) >= guardFrom && len(g.gone) > left
}

// remaining counts what the store still has, up to most.
func (g *guard) remaining(most int) int {
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
func (g *guard) report() *Hold {
	if !g.holding() {
		return nil
	}
	names := map[string]bool{}
	for _, d := range g.gone {
		names[d.record.Service] = true
	}
	return &Hold{
		Since: g.since, Until: g.deadline(), Instances: len(g.gone), Remaining: g.remaining(math.MaxInt),
		Services: slices.Sorted(maps.Keys(names)),
	}
}
