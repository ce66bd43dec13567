package register

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestAListFromBeforeOurOwnWriteIsNoLostData hears a list that was read before a write was confirmed and delivered
// after it, which nothing from outside can time.
func TestAListFromBeforeOurOwnWriteIsNoLostData(t *testing.T) {
	written := time.Now()
	for name, tc := range map[string]struct {
		began     time.Time
		rev, want int64
		warn      bool
	}{
		"asked for before the write": {written.Add(-time.Millisecond), 3, 4, false},
		"asked for after it":         {written.Add(time.Millisecond), 3, 0, true},
		"as new as the write":        {written.Add(time.Millisecond), 4, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			k := newKeeper(Options{Node: "n1", Kind: KindRun, Metrics: NewMetrics(nil), Log: slog.New(slog.NewTextHandler(&log, nil))}, &board{})
			k.committed, k.written = 4, written
			k.hear(news{all: map[string]stored{}, rev: tc.rev, began: tc.began})
			if k.committed != tc.want || strings.Contains(log.String(), "etcd has lost data") != tc.warn {
				t.Errorf("waits for revision %d, want %d; log:\n%s", k.committed, tc.want, &log)
			}
			if k.mirror.rev != tc.rev {
				t.Errorf("the copy is of revision %d, want the list's %d: its watch goes on from there", k.mirror.rev, tc.rev)
			}
		})
	}
}
