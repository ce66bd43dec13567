package reload

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/testkit"
)

// docs/architecture.md draws the states. Each arrow is in the table, and each entry of the table has its arrow.
func TestTheDiagramShowsTheTransitions(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(testkit.Root(), "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, begins := strings.Cut(string(page), "<!-- states: reload -->")
	diagram, _, ends := strings.Cut(rest, "<!-- /states -->")
	if !begins || !ends {
		t.Fatal("docs/architecture.md has no diagram of reload's states")
	}
	drawn := map[[2]State]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\s*(\w+) --> (\w+)\b`).FindAllStringSubmatch(diagram, -1) {
		drawn[[2]State{State(m[1]), State(m[2])}] = true
	}
	for _, from := range states() {
		for _, to := range transitions[from] {
			if !drawn[[2]State{from, to}] {
				t.Errorf("%s --> %s is not drawn", from, to)
			}
			delete(drawn, [2]State{from, to})
		}
	}
	for arrow := range drawn {
		t.Errorf("%s --> %s is drawn and cannot happen", arrow[0], arrow[1])
	}
	if len(transitions) != len(states()) {
		t.Errorf("%d states, %d of them in the table", len(states()), len(transitions))
	}
}

// The changes of a storm come without a break. The disk follows within a second of the first, and then as often as
// SaveInterval and a fifth of a processor allow.
func TestSavingHasABudget(t *testing.T) {
	t.Parallel()
	const every = time.Millisecond
	for name, tt := range map[string]struct{ took, first, period time.Duration }{
		"quick":     {5 * time.Millisecond, time.Second, time.Second},
		"long":      {time.Second, time.Second, 5 * time.Second},
		"very long": {8 * time.Second, time.Second, 18 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSaver()
				storm := time.NewTicker(every)
				defer storm.Stop()
				defer s.timer.disarm()
				var starts []time.Duration
				var done <-chan time.Time
				for began := time.Now(); len(starts) < 3; {
					select {
					case <-storm.C:
						s.schedule()
					case <-s.timer.c():
						s.timer.disarm()
						starts = append(starts, time.Since(began))
						s.cancel, done = func() {}, time.After(tt.took)
					case <-done:
						s.cancel, s.oldest = nil, time.Now()
						s.rest(time.Second, tt.took)
						s.schedule()
					}
				}
				for i, want := range []time.Duration{tt.first, tt.first + tt.period, tt.first + 2*tt.period} {
					if got := starts[i]; got < want || got > want+want/50+2*every {
						t.Errorf("save %d began after %v, want %v", i+1, got, want)
					}
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSaver()
		s.schedule()
		began := time.Now()
		<-s.timer.c()
		if took := time.Since(began); took != saveQuiet {
			t.Errorf("a change alone is saved after %v, want %v", took, saveQuiet)
		}
	})
}
