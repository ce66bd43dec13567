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

// What HAProxy was asked to do is no error; what it finds out by itself is one.
func TestABackendWithoutServersIsAnErrorUnlessItWasAskedFor(t *testing.T) {
	const alert = "[ALERT]    (1) : backend 'web' has no server available!\n"
	for before, want := range map[string]string{
		"[WARNING]  (1) : Server web/a enters drain state. 0 active and 0 backup servers online. 0 sessions requeued, 0 total in queue.\n":   "level=INFO",
		"[WARNING]  (1) : Server web/a is DOWN, reason: Layer4 connection problem. 0 active and 0 backup servers left. 0 sessions active.\n": "level=ERROR",
		"": "level=ERROR",
	} {
		var log strings.Builder
		o := newOutput(slog.New(slog.NewTextHandler(&log, nil)))
		_, _ = o.Write([]byte(before + alert))
		if !strings.Contains(log.String(), want) {
			t.Errorf("after %q: %s", before, log.String())
		}
	}
}
