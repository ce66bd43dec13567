package reconcile_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/catalog"
	"nuncio/reconcile"
)

// live runs a Follower with this state directory for as long as during takes, and returns its log.
func live(t *testing.T, opts reconcile.Options, during func(*reconcile.Reconciler, chan<- *catalog.Snapshot)) string {
	t.Helper()
	var log strings.Builder
	opts.Applier, opts.Logger = newFakeApplier(), slog.New(slog.NewTextHandler(&log, nil))
	r, err := reconcile.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	snapshots, ended := make(chan *catalog.Snapshot), make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- r.Run(ctx, snapshots, nil) }()
	during(r, snapshots)
	synctest.Wait()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	return log.String()
}

func records(names ...string) *catalog.Snapshot {
	b := catalog.NewBuilder(catalog.BuilderOptions{})
	for _, name := range names {
		b.Put("/services/web/"+name, []byte("192.0.2.1:80"))
	}
	return b.Snapshot(1)
}

func TestTheGuardRemembersAcrossARestart(t *testing.T) {
	for _, c := range []struct {
		name string
		then reconcile.Options
		do   func(t *testing.T, file string)
		held bool
		log  string
	}{
		{name: "at once", held: true},
		{name: "five minutes later", do: func(t *testing.T, file string) { aged(t, file, 5*time.Minute) }, held: true},
		{name: "an hour later", do: func(t *testing.T, file string) { aged(t, file, time.Hour) }},
		{name: "with another prefix", then: reconcile.Options{Prefix: "/others/"}},
		{name: "with a selection that has neither", then: reconcile.Options{Select: selector(t, "tag=edge")}},
		{name: "without the file", do: func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "with half a file", do: func(t *testing.T, file string) {
			if err := os.WriteFile(file, []byte(`{"/services/web/a":"192.0.2`), 0o600); err != nil {
				t.Fatal(err)
			}
		}, log: "unexpected end of JSON input"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "records.json")
			synctest.Test(t, func(t *testing.T) {
				first := reconcile.Options{StateDir: dir, Prefix: "/services/", ShrinkHold: time.Minute}
				live(t, first, func(_ *reconcile.Reconciler, s chan<- *catalog.Snapshot) { s <- records("a", "b") })
				if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
					t.Fatalf("file: %v, %v; want mode 0600", info, err)
				}
				// The clock within is not the file system's.
				aged(t, file, 0)
				if c.do != nil {
					c.do(t, file)
				}
				second := first
				if c.then.Prefix != "" {
					second.Prefix = c.then.Prefix
				}
				second.Select = c.then.Select
				log := live(t, second, func(f *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
					s <- records()
					synctest.Wait()
					if hold := f.Status().Hold; (hold != nil) != c.held || c.held && hold.Instances != 2 {
						t.Errorf("hold %+v, want one: %v", hold, c.held)
					}
				})
				if !strings.Contains(log, c.log) || c.log == "" && strings.Contains(log, "cannot be read") {
					t.Errorf("log, want %q:\n%s", c.log, log)
				}
			})
		})
	}
}

func selector(t *testing.T, text string) catalog.Selector {
	t.Helper()
	s, err := catalog.ParseSelector(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func aged(t *testing.T, file string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsKeptIsFreshWhileNothingChanges(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "records.json")
	synctest.Test(t, func(t *testing.T) {
		opts := reconcile.Options{StateDir: dir, Prefix: "/services/", ShrinkHold: time.Minute}
		live(t, opts, func(_ *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records("a")
			time.Sleep(3 * time.Hour)
		})
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if age := time.Since(info.ModTime()); age > 2*time.Minute {
			t.Errorf("the file is %v old after three quiet hours", age)
		}
	})
}

// TestARestartDoesNotEndAHold: more than half of what is held is missing, but not more than half of everything.
func TestARestartDoesNotEndAHold(t *testing.T) {
	dir := t.TempDir()
	opts := reconcile.Options{StateDir: dir, Prefix: "/services/", ShrinkHold: time.Minute}
	all := make([]string, 20)
	for i := range all {
		all[i] = fmt.Sprintf("i%02d", i)
	}
	held := func(t *testing.T, r *reconcile.Reconciler, what string, want int) {
		t.Helper()
		synctest.Wait()
		got := 0
		if hold := r.Status().Hold; hold != nil {
			got = hold.Instances
		}
		if got != want {
			t.Errorf("%s: %d instances are held, want %d", what, got, want)
		}
	}
	file := filepath.Join(dir, "records.json")
	synctest.Test(t, func(t *testing.T) {
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records(all...)
			s <- records(all[11:]...)
			s <- records(all[6:]...)
			held(t, r, "11 of 20 go, 5 come back", 6)
			if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "nuncio:hold") {
				t.Errorf("what is held is not on disk before the end, for a nuncio that is killed: %v", err)
			}
		})
		aged(t, file, 0)
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records(all[6:]...)
			held(t, r, "after the restart", 6)
			s <- records(all[5:]...)
			held(t, r, "one more is back", 5)
			time.Sleep(3 * time.Second)
			held(t, r, "5 of 11 are missing, and nothing more comes", 0)
		})
		aged(t, file, 0)
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records(all[5:]...)
			held(t, r, "after the next restart", 0)
		})
		aged(t, file, 0)
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records(all[17:]...)
			held(t, r, "another store, with 3 of the 15", 12)
		})
	})
}

// Of a hold, what a new selection leaves out does not count as having come back.
func TestASelectionDoesNotEndAHold(t *testing.T) {
	dir, edge := t.TempDir(), selector(t, "tag=edge")
	opts := reconcile.Options{StateDir: dir, Prefix: "/services/", ShrinkHold: time.Minute}
	tagged := func(sel catalog.Selector, lost int) *catalog.Snapshot { // 6 instances at the edge and 8 others, without the first of each
		b := catalog.NewBuilder(catalog.BuilderOptions{Select: sel})
		for i := lost; i < 6; i++ {
			b.Put(fmt.Sprintf("/services/web/e%d", i), []byte(`{"host":"192.0.2.1","port":80,"tags":["edge"]}`))
		}
		for i := 3 * lost; i < 8; i++ {
			b.Put(fmt.Sprintf("/services/web/o%d", i), []byte("192.0.2.1:80"))
		}
		return b.Snapshot(1)
	}
	synctest.Test(t, func(t *testing.T) {
		live(t, opts, func(_ *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- tagged(catalog.Selector{}, 0)
			s <- tagged(catalog.Selector{}, 3)
		})
		aged(t, filepath.Join(dir, "records.json"), 0)
		opts.Select = edge
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- tagged(edge, 3)
			synctest.Wait()
			if hold := r.Status().Hold; hold == nil || hold.Instances != 3 {
				t.Errorf("hold %+v, want one of the 3 that are missing at the edge", hold)
			}
		})
	})
}

func TestAStartWithAnotherStoreHoldsMoreThanHalfOfAFew(t *testing.T) {
	dir := t.TempDir()
	opts := reconcile.Options{StateDir: dir, Prefix: "/services/", ShrinkHold: time.Minute}
	synctest.Test(t, func(t *testing.T) {
		live(t, opts, func(_ *reconcile.Reconciler, s chan<- *catalog.Snapshot) { s <- records("a", "b", "c", "d") })
		aged(t, filepath.Join(dir, "records.json"), 0)
		live(t, opts, func(r *reconcile.Reconciler, s chan<- *catalog.Snapshot) {
			s <- records("a")
			synctest.Wait()
			if hold := r.Status().Hold; hold == nil || hold.Instances != 3 {
				t.Errorf("hold %+v, want one of b, c and d", hold)
			}
		})
	})
}
