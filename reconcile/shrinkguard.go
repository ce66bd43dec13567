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
	// shrinkSettle is how long a hold outlasts the last return once enough is back: registrars that find an empty store
	// write their records one after the other, and what has not had its turn must not be dropped meanwhile.
	shrinkSettle = 2 * time.Second
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
// or more instances are missing, or the last one; of a store that may be a different one, more than half of any number.
// Then it keeps what is missing, beside everything that the store says now, until no more than half of all that it has
// kept is missing and nothing more comes back, an operator accepts the loss, or the time is over. Instances that were in
// drain or maint when they went had been taken out on purpose and are never counted or kept.
//
// It has no clock and no goroutine of its own.
type shrinkGuard struct {
	holdTimes

	newest  *catalog.Snapshot // as the store has it
	missing []departure       // within the window, or since the hold began; not back yet
	held    map[string]bool   // what has been missing since the hold began, by service/instance
	resumed bool              // newest is what the previous run desired, and held what it held
	dropped int               // instances that the end of the last hold gave up
}

type departure struct {
	record catalog.Record
	at     time.Time
}

func (d departure) name() string { return d.record.Service + "/" + d.record.Instance.Name }

// guardEvent is what a step of the guard led to.
type guardEvent string

const (
	guardNone      guardEvent = ""
	guardStarted   guardEvent = "started"
	guardRecovered guardEvent = "recovered" // enough is back
	guardExpired   guardEvent = "expired"   // the time is over
	guardAccepted  guardEvent = "accepted"  // by an operator
)

// resume takes up what the previous run knew: what it desired, and what of that it held.
func (g *shrinkGuard) resume(desired *catalog.Snapshot, held map[string]bool) {
	g.newest, g.held, g.resumed = desired, held, desired != nil
}

// take notes a new snapshot of the store.
func (g *shrinkGuard) take(now time.Time, next *catalog.Snapshot) guardEvent {
	before, otherStore := g.newest, g.resumed
	if before != nil && g.hold > 0 {
		for _, r := range next.Missing(before) {
			if r.Instance.State == catalog.StateReady {
				g.missing = append(g.missing, departure{r, now})
			}
		}
	}
	if before != nil && (next.Cluster != before.Cluster || next.Revision < before.Revision) {
		otherStore = true // one that was wiped or restored goes back to an older revision
	}
	g.newest, g.resumed = next, false
	returned := len(g.missing)
	g.missing = slices.DeleteFunc(g.missing, func(d departure) bool {
		return next.Service(d.record.Service).Has(d.record.Instance.Name) || !g.holding() && now.Sub(d.at) > shrinkWindow
	})
	returned -= len(g.missing)
	if g.holding() {
		return g.proceed(now, returned > 0)
	}
	if !g.exceeded(otherStore) {
		g.held = nil // of the previous run, which only its successor's first snapshot is compared with
		return guardNone
	}
	g.since = now
	g.count()
	return guardStarted
}

// proceed continues a hold.
func (g *shrinkGuard) proceed(now time.Time, returned bool) guardEvent {
	g.count()
	switch {
	case len(g.missing) == 0:
		return g.end(guardRecovered)
	case g.mostlyMissing():
		g.settled = time.Time{}
	case returned || g.settled.IsZero():
		g.settled = now.Add(shrinkSettle)
	}
	return guardNone
}

// count adds what is missing to what has been held.
func (g *shrinkGuard) count() {
	if g.held == nil {
		g.held = make(map[string]bool, len(g.missing))
	}
	for _, d := range g.missing {
		g.held[d.name()] = true
	}
}

// mostlyMissing reports whether more than half of what has been held is missing.
func (g *shrinkGuard) mostlyMissing() bool {
	missing := 0
	for _, d := range g.missing {
		if g.held[d.name()] {
			missing++
		}
	}
	return 2*missing > len(g.held)
}

// due ends a hold whose time has come.
func (g *shrinkGuard) due(now time.Time) guardEvent {
	why := g.over(now)
	if why != guardNone {
		g.end(why)
	}
	return why
}

// end ends the hold.
func (g *shrinkGuard) end(why guardEvent) guardEvent {
	g.dropped = len(g.missing)
	g.since, g.settled, g.missing, g.held = time.Time{}, time.Time{}, nil, nil
	return why
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
func (g *shrinkGuard) exceeded(otherStore bool) bool {
	missing := len(g.missing)
	if missing == 0 {
		return false
	}
	if len(g.held) > 0 && g.mostlyMissing() {
		return true // a hold of the previous run, which its end has interrupted
	}
	remaining := g.remaining(missing) // a full count would visit every instance there is
	return remaining == 0 || missing > remaining && (otherStore || remaining+missing >= shrinkFrom)
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
