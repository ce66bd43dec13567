package reconcile

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTheDiagramShowsTheTransitions compares docs/architecture.md with the code, both ways.
func TestTheDiagramShowsTheTransitions(t *testing.T) {
	want := []string{"[*] --> " + string(StateWaiting)}
	for from, events := range transitions {
		for on, to := range events {
			want = append(want, fmt.Sprintf("%s --> %s: %s", from, to, on))
		}
	}
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, diagram, _ := strings.Cut(string(text), "<!-- states: reconcile -->")
	diagram, _, _ = strings.Cut(diagram, "<!-- /states -->")
	var got []string
	for line := range strings.Lines(diagram) {
		if strings.Contains(line, "-->") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/architecture.md (-code +diagram):\n%s", diff)
	}
}

func TestEveryStateCanBeReachedAndLeft(t *testing.T) {
	reached := map[State]bool{StateWaiting: true}
	for _, events := range transitions {
		for to := range maps.Values(events) {
			reached[to] = true
		}
	}
	for _, s := range []State{StateWaiting, StateFollowing, StateFallback, StateFailing, StateRolledBack, StateFrozen} {
		if !reached[s] || len(transitions[s]) == 0 {
			t.Errorf("state %s: reached %t, left by %d events", s, reached[s], len(transitions[s]))
		}
	}
}
