package reconcile

import (
	"fmt"
	"testing"
	"time"

	"nuncio/internal/catalog"
)

// keyStore is what the store holds, as keyGuard sees it.
type keyStore struct {
	builder *catalog.Builder
	guard   keyGuard
	now     time.Time
}

func newKeyStore(n int) *keyStore {
	s := &keyStore{
		builder: catalog.NewBuilder(catalog.BuilderOptions{NoRecords: true, Watched: catalog.NewRanges("", []string{"/up", "/other/"})}),
		guard:   keyGuard{holdTimes: holdTimes{hold: time.Minute}}, now: time.Unix(1_000_000, 0),
	}
	for i := range n {
		s.builder.Put(fmt.Sprintf("/up/%d", i), []byte("10.0.0.1:80"))
	}
	s.builder.Put("/other/x", []byte("1"))
	s.builder.Put("/up", []byte("single"))
	s.step()
	return s
}

func (s *keyStore) step() guardEvent { return s.guard.take(s.now, s.builder.Snapshot(1)) }

func (s *keyStore) del(from, to int) {
	for i := from; i < to; i++ {
		s.builder.Delete(fmt.Sprintf("/up/%d", i))
	}
}

// shown counts the keys below /up/ that templates see.
func (s *keyStore) shown() (n int) {
	for _, p := range s.guard.desired(s.builder.Snapshot(1)).Extra {
		if len(p.Key) > len("/up/") && p.Key[:4] == "/up/" {
			n++
		}
	}
	return n
}

func TestKeysThatVanishAreHeld(t *testing.T) {
	for _, tt := range []struct {
		name         string
		before, gone int
		want         guardEvent
		shown        int
	}{
		{"all of three", 3, 3, guardStarted, 3},
		{"the only one", 1, 1, guardStarted, 1},
		{"two of three", 3, 2, guardNone, 1},
		{"half of ten", 10, 5, guardNone, 5},
		{"six of ten", 10, 6, guardStarted, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newKeyStore(tt.before)
			s.del(0, tt.gone)
			if got := s.step(); got != tt.want || s.shown() != tt.shown {
				t.Errorf("event %q, %d keys shown; want %q, %d", got, s.shown(), tt.want, tt.shown)
			}
		})
	}
}

// One loss of many steps is one loss; a slow one is none.
func TestStepsOfOneLoss(t *testing.T) {
	for pause, want := range map[time.Duration]int{time.Second: 3, 11 * time.Second: 1} {
		s := newKeyStore(3)
		for i := range 3 {
			s.now = s.now.Add(pause)
			s.del(i, i+1)
			s.step()
		}
		if got := s.shown(); got != want {
			t.Errorf("one every %v: %d keys shown, want %d", pause, got, want)
		}
	}
}

func TestTheEndOfAHoldOfKeys(t *testing.T) {
	s := newKeyStore(4)
	s.del(0, 4)
	s.step()
	s.builder.Put("/up/0", []byte("10.0.0.9:80"))
	if got := s.step(); got != guardNone || s.shown() != 4 {
		t.Fatalf("one of four is back: %q, %d shown", got, s.shown())
	}
	s.builder.Put("/up/1", []byte("10.0.0.9:80"))
	s.builder.Put("/up/2", []byte("10.0.0.9:80"))
	if got := s.step(); got != guardNone || s.shown() != 4 {
		t.Fatalf("three of four are back: %q, %d shown; the rest needs its turn", got, s.shown())
	}
	if got := s.guard.due(s.now.Add(shrinkSettle)); got != guardRecovered || s.shown() != 3 {
		t.Errorf("settled: %q, %d shown", got, s.shown())
	}

	s = newKeyStore(2)
	s.del(0, 2)
	s.step()
	if got := s.guard.due(s.now.Add(59 * time.Second)); got != guardNone {
		t.Errorf("before its time: %q", got)
	}
	if got := s.guard.due(s.now.Add(time.Minute)); got != guardExpired || s.shown() != 0 {
		t.Errorf("its time is over: %q, %d shown", got, s.shown())
	}
	// A single watched key is believed when it goes.
	s.builder.Delete("/up")
	if got := s.step(); got != guardNone {
		t.Errorf("a single key: %q", got)
	}
	off := newKeyStore(2)
	off.guard = keyGuard{}
	off.step()
	off.del(0, 2)
	if got := off.step(); got != guardNone || off.shown() != 0 {
		t.Errorf("with --shrink-hold=0: %q", got)
	}
}
