package reload

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
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

func TestSavingWaitsLongerWhereItTakesLonger(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ took, quiet, limit time.Duration }{
		{0, 100 * time.Millisecond, time.Second},
		{90 * time.Millisecond, 100 * time.Millisecond, time.Second},
		{200 * time.Millisecond, 200 * time.Millisecond, time.Second},
		{time.Second, time.Second, 4 * time.Second},
		{8 * time.Second, 8 * time.Second, 10 * time.Second},
		{time.Minute, 10 * time.Second, 10 * time.Second},
	} {
		if quiet, limit := saveDelay(tt.took); quiet != tt.quiet || limit != tt.limit {
			t.Errorf("after %v: quiet %v, limit %v", tt.took, quiet, limit)
		}
	}
}
