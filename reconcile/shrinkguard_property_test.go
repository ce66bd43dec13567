package reconcile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"nuncio/internal/catalog"
)

// guardModel knows what a guard must do from what it was shown, without the guard's own means.
type guardModel struct {
	guard   shrinkGuard
	builder *catalog.Builder
	now     time.Time

	revision int64
	stored   map[string]bool
	desired  map[string]bool
	held     map[string]bool // since the present hold began; nil without one
	log      []string
}

func newGuardModel() *guardModel {
	return &guardModel{
		guard: shrinkGuard{holdTimes: holdTimes{hold: 20 * time.Second}}, builder: catalog.NewBuilder(catalog.BuilderOptions{}), now: time.Unix(1e9, 0),
		stored: map[string]bool{}, desired: map[string]bool{},
	}
}

// step changes the store or lets time pass, and returns what the guard made of it.
func (m *guardModel) step(r *rand.Rand) guardEvent {
	name := func() string { return fmt.Sprintf("s%d/i%d", r.IntN(3), r.IntN(8)) }
	what := [...]string{"loses", "loses", "loses most", "regains", "regains", "gets", "waits", "waits", "restarts", "moves"}[r.IntN(10)]
	m.log = append(m.log, what)
	switch some := 1 + r.IntN(6); what {
	case "waits":
		m.now = m.now.Add(time.Duration(r.IntN(12000)) * time.Millisecond)
		return m.guard.due(m.now)
	case "restarts":
		m.guard, m.builder = m.restarted()
	case "moves":
		m.revision = 0
		m.builder.From(r.Uint64())
	case "loses most":
		for _, gone := range slices.Sorted(maps.Keys(m.stored)) {
			if r.IntN(5) > 0 {
				m.builder.Delete("/services/" + gone)
			}
		}
	case "loses":
		for range some {
			m.builder.Delete("/services/" + name())
		}
	case "gets":
		m.builder.Put("/services/"+name(), []byte("192.0.2.1:80"))
	case "regains":
		missing := slices.Sorted(maps.Keys(m.held))
		for range min(some, len(missing)) {
			m.builder.Put("/services/"+missing[r.IntN(len(missing))], []byte("192.0.2.1:80"))
		}
	}
	m.revision++
	return m.guard.take(m.now, m.builder.Snapshot(m.revision))
}

// restarted is what a nuncio that starts now has, from a file that was written just before.
func (m *guardModel) restarted() (shrinkGuard, *catalog.Builder) {
	next, builder := shrinkGuard{holdTimes: holdTimes{hold: m.guard.hold}}, catalog.NewBuilder(catalog.BuilderOptions{})
	for name := range m.stored {
		builder.Put("/services/"+name, []byte("192.0.2.1:80"))
	}
	if m.guard.newest != nil {
		next.resume(m.guard.desired(), maps.Clone(m.guard.held))
	}
	return next, builder
}

func names(s *catalog.Snapshot) map[string]bool {
	all := map[string]bool{}
	for _, service := range s.Services {
		for _, inst := range service.Instances {
			all[service.Name+"/"+inst.Name] = true
		}
	}
	return all
}

// without counts what a has and b has not.
func without(a, b map[string]bool) (n int) {
	for name := range a {
		if !b[name] {
			n++
		}
	}
	return n
}

// check returns what is wrong after a step.
func (m *guardModel) check(event guardEvent) string {
	stored, desired := names(m.guard.newest), names(m.guard.desired())
	missing, lost := without(m.held, stored), without(m.desired, desired)
	joined := without(desired, stored) - missing // losses of this step that are held too
	defer m.note(stored, desired)
	switch {
	case without(stored, desired) > 0:
		return "what the store says is not desired"
	case !m.guard.holding() && without(desired, stored) > 0:
		return "something is held without a hold"
	case m.held != nil && m.guard.holding() && without(m.held, desired) > 0:
		return "something that was held is gone while the hold lasts"
	case m.held != nil && !m.guard.holding() && event != guardExpired && 2*missing > len(m.held):
		return fmt.Sprintf("the hold ended with %d of %d missing", missing, len(m.held))
	case event != guardExpired && lost > 0 && (len(desired) == 0 || lost+len(desired) >= shrinkFrom && lost > len(desired)):
		return fmt.Sprintf("%d instances went at once and %d are left", lost, len(desired))
	case m.guard.holding() && !m.guard.deadline().After(m.now) && event != guardNone:
		return "the hold is over and goes on"
	case m.held != nil && m.guard.holding() && 2*(missing+joined) <= len(m.held)+joined && m.guard.deadline().After(m.now.Add(shrinkSettle)):
		return "enough is back and the hold has no end soon"
	}
	return ""
}

func (m *guardModel) note(stored, desired map[string]bool) {
	m.stored, m.desired = stored, desired
	switch {
	case !m.guard.holding():
		m.held = nil
	case m.held == nil:
		m.held = map[string]bool{}
	}
	for name := range desired {
		if m.guard.holding() && !stored[name] {
			m.held[name] = true
		}
	}
}

// TestWhateverIsLostAndComesBack tries random sequences of losses, returns, waits, restarts and other stores.
func TestWhateverIsLostAndComesBack(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	seen := map[guardEvent]int{}
	proves := func() bool { return min(seen[guardStarted], seen[guardRecovered], seen[guardExpired]) >= 20 }
	for n := 0; n < 2000 || n < 20000 && !proves(); n++ {
		m := newGuardModel()
		for range 40 {
			event := m.step(r)
			seen[event]++
			if m.guard.newest == nil {
				continue
			}
			if fault := m.check(event); fault != "" {
				t.Fatalf("seed %d: %s, after %q", seed, fault, m.log)
			}
		}
	}
	if !proves() {
		t.Errorf("seed %d: the events came %v times: nothing is proved", seed, seen)
	}
}
