package reload

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The file is tested from inside, because what it does shows in the log alone.
func TestManyChangesAreLoggedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := commandLog{log: slog.New(slog.NewTextHandler(&out, nil))}
		defer l.pause.disarm()
		change := func(revision int64) {
			l.add(Result{Outcome: Runtime, Revision: revision, Servers: 2, Commands: 3, Duration: time.Duration(revision%100) * time.Millisecond})
		}
		wait := func() { <-l.pause.c(); l.flush() }
		change(1)
		for i := range 500 {
			change(int64(i + 2))
		}
		wait()
		change(600)
		wait()
		wait()
		if l.pause.armed() {
			t.Error("the timer goes on without anything to log")
		}
		change(700)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		for i, want := range []string{"revision=1 servers=2", "revision=501 applies=500 servers=1000 commands=1500 longest=99ms", "revision=600 applies=1 ", "revision=700 servers=2"} {
			if len(lines) != 4 || !strings.Contains(lines[i], want) {
				t.Fatalf("got\n%s\nwant 4 lines, line %d with %q", out.String(), i+1, want)
			}
		}
	})
}
