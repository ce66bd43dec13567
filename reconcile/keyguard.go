package reconcile

import (
	"slices"
	"strings"
	"time"

	"nuncio/internal/catalog"
)

// KeyHold says which keys that are no records are kept although the store no longer has them.
type KeyHold struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Keys  int       `json:"keys"`
	// Prefixes are the watched directories that they belong to.
	Prefixes []string `json:"prefixes"`
}

// keyGuard is the shrink guard for keys that are no records, which templates read: when all keys of a watched directory are
// gone, or more than half of ten or more, it keeps what is missing, until no more than half of it is, an operator accepts the
// loss, or the time is over. A single watched key is believed when it goes.
//
// It has no clock and no goroutine of its own.
type keyGuard struct {
	holdTimes

	extra   []catalog.Pair // as the store has them, by key
	missing []lostPair     // within the window, or since the hold began; not back yet
	held    int            // how many have been missing since the hold began
}

type lostPair struct {
	catalog.Pair
	at time.Time
}

// take notes a new snapshot of the store.
func (g *keyGuard) take(now time.Time, next *catalog.Snapshot) guardEvent {
	same := len(g.extra) == len(next.Extra) && (len(g.extra) == 0 || &g.extra[0] == &next.Extra[0]) // a snapshot shares what did not change
	if g.hold == 0 || same && len(g.missing) == 0 {
		g.extra = next.Extra
		return guardNone
	}
	has := func(key string) bool {
		_, found := slices.BinarySearchFunc(next.Extra, key, func(p catalog.Pair, key string) int { return strings.Compare(p.Key, key) })
		return found
	}
	for _, p := range g.extra {
		if !has(p.Key) {
			g.missing = append(g.missing, lostPair{p, now})
		}
	}
	g.extra = next.Extra
	before := len(g.missing)
	g.missing = slices.DeleteFunc(g.missing, func(l lostPair) bool { return has(l.Key) || !g.holding() && now.Sub(l.at) > shrinkWindow })
	returned := len(g.missing) < before
	g.held = max(g.held, len(g.missing))
	switch {
	case g.holding() && len(g.missing) == 0:
		return g.end(guardRecovered)
	case g.holding() && 2*len(g.missing) > g.held:
		g.settled = time.Time{}
		return guardNone
	case g.holding():
		if returned || g.settled.IsZero() {
			g.settled = now.Add(shrinkSettle) // what has not had its turn must not be dropped
		}
		return guardNone
	}
	shrunk := g.shrunk(next.Watched)
	if len(shrunk) == 0 {
		g.held = 0
		return guardNone
	}
	g.missing = slices.DeleteFunc(g.missing, func(l lostPair) bool { return !catalog.Ranges(shrunk).Hold(l.Key) })
	g.since, g.held = now, len(g.missing)
	return guardStarted
}

// shrunk returns the watched directories that have lost too much.
func (g *keyGuard) shrunk(watched catalog.Ranges) (dirs []string) {
	if len(g.missing) == 0 {
		return nil
	}
	for _, dir := range watched {
		if !strings.HasSuffix(dir, "/") {
			continue
		}
		missing, remaining := 0, 0
		for _, l := range g.missing {
			if strings.HasPrefix(l.Key, dir) {
				missing++
			}
		}
		for _, p := range g.extra {
			if strings.HasPrefix(p.Key, dir) {
				remaining++
			}
		}
		if missing > 0 && (remaining == 0 || missing > remaining && missing+remaining >= shrinkFrom) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (g *keyGuard) end(why guardEvent) guardEvent {
	g.since, g.settled, g.missing, g.held = time.Time{}, time.Time{}, nil, 0
	return why
}

func (g *keyGuard) due(now time.Time) guardEvent {
	why := g.over(now)
	if why != guardNone {
		g.end(why)
	}
	return why
}

// desired adds what is held to a snapshot.
func (g *keyGuard) desired(s *catalog.Snapshot) *catalog.Snapshot {
	if !g.holding() || s == nil {
		return s
	}
	pairs := make([]catalog.Pair, len(g.missing))
	for i, l := range g.missing {
		pairs[i] = l.Pair
	}
	return s.WithExtra(pairs)
}

// report is nil while nothing is held.
func (g *keyGuard) report(watched catalog.Ranges) *KeyHold {
	if !g.holding() {
		return nil
	}
	h := &KeyHold{Since: g.since, Until: g.deadline(), Keys: len(g.missing)}
	for _, dir := range watched {
		if strings.HasSuffix(dir, "/") && slices.ContainsFunc(g.missing, func(l lostPair) bool { return strings.HasPrefix(l.Key, dir) }) {
			h.Prefixes = append(h.Prefixes, dir)
		}
	}
	return h
}

// takeKeys reports what the guard of keys did. It comes before take, which adopts it.
func (r *Reconciler) takeKeys(what guardEvent, watched catalog.Ranges) {
	hold := r.keys.report(watched)
	r.metrics.heldKeys.Set(0)
	if hold != nil {
		r.metrics.heldKeys.Set(float64(hold.Keys))
	}
	r.update(func(s *Status) { s.KeyHold = hold })
	switch what {
	case guardStarted:
		r.metrics.activations.Inc()
		r.opts.Logger.Warn("shrink guard holds keys: too many of a directory vanished from the store at once",
			"keys", hold.Keys, "directories", strings.Join(hold.Prefixes, " "), "until", hold.Until, "accept", "nuncio accept, or signal USR2")
	case guardRecovered, guardExpired, guardAccepted:
		r.opts.Logger.Info("shrink guard holds no keys any more, the store is followed as it is", "reason", string(what))
	}
}
