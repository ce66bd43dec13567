package reconcile_test

import (
	"context"
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
