package process

import (
	"log/slog"
	"strings"
	"testing"
)

// lines is what is kept of a text that haproxy prints in pieces.
func lines(pieces ...string) []string {
	o := newOutput(slog.New(slog.DiscardHandler))
	for _, p := range pieces {
		_, _ = o.Write([]byte(p))
	}
	return o.lines
}

func TestOutputIsCutIntoBoundedLines(t *testing.T) {
	got := lines("a\nb", "c\n", strings.Repeat("x", 20000), strings.Repeat("y", 20000)+"\nz\nrest", "")
	if len(got) != 4 || got[0] != "a" || got[1] != "bc" || len(got[2]) != 8<<10 || got[3] != "z" {
		t.Errorf("got %.100q", got)
	}
	if got := lines(strings.Repeat("n\n", 5000)); len(got) != 100 {
		t.Errorf("%d lines are kept", len(got))
	}
}
