package reconcile_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/render"
	"nuncio/watch"
)

// startIn starts a Reconciler with a state directory, as the first or as the next nuncio that has it.
func startIn(t *testing.T, dir string) *env {
	t.Helper()
	return startWith(t, reconcile.Options{StateDir: dir})
}

func (e *env) rollback(what string, set, want int64) {
	e.t.Helper()
	got, err := e.reconciler.Rollback(e.t.Context(), set)
	if err != nil || got.Number != want {
		e.t.Errorf("%s: rolled back to %d, %v; want %d", what, got.Number, err, want)
	}
	synctest.Wait()
}

func (e *env) wantRefusal(what string, err error, want string) {
	e.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		e.t.Errorf("%s: error %v, want one that says %q", what, err, want)
	}
	synctest.Wait()
}

func (e *env) resume() {
	e.t.Helper()
	if _, err := e.reconciler.Resume(e.t.Context()); err != nil {
		e.t.Errorf("Resume: %v", err)
	}
	synctest.Wait()
}

// wantRuns compares what was applied last.
func (e *env) wantRuns(what, want string) {
	e.t.Helper()
	synctest.Wait()
	e.applier.mu.Lock()
	defer e.applier.mu.Unlock()
	if got := strings.TrimSpace(string(e.applier.last.Files.Config())); got != want {
		e.t.Errorf("%s: applied last %q, want %q", what, got, want)
	}
}

func TestRollbackGivesEarlierTemplatesWithTheRecordsOfToday(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, t.TempDir())
		e.services("a")
		e.template("# one" + names)
		e.template("# two" + names)
		e.template("# mistake" + names)
		for range 500 {
			e.services("a")
			e.services("a", "b")
		}
		e.wantRuns("before", "# mistake a b")
		e.rollback("one set back", 0, 2)
		e.wantRuns("one set back", "# two a b")
		e.wantState("one set back", reconcile.StateRolledBack)
		e.services("c")
		e.wantRuns("a change", "# two c")
		e.rollback("one further", 0, 1)
		e.wantRuns("one further", "# one c")
		_, err := e.reconciler.Rollback(t.Context(), 0)
		e.wantRefusal("with nothing further back", err, "no template set before number 1")
		e.rollback("a certain one", 2, 2)
		e.wantRuns("a certain one", "# two c")
		if got, want := e.reconciler.Status().RolledBack.TemplateSet, e.applier.last.TemplateSet; got != 2 || want != 2 {
			t.Errorf("the status has set %d, the generation %d, want 2", got, want)
		}
		e.resume()
		e.wantRuns("the end", "# mistake c")
		e.wantState("the end", reconcile.StateFollowing)
		_, err = e.reconciler.Resume(t.Context())
		if !errors.Is(err, reconcile.ErrNothingToResume) {
			t.Errorf("Resume of nothing: %v", err)
		}
	})
}

func TestEditsDuringARollbackAreShownAndUsedAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, t.TempDir())
		e.services("a")
		e.template("# one" + names)
		e.template("# two" + names)
		e.rollback("back", 0, 1)
		e.applier.take()
		e.template("# three {{if")
		e.wantTemplatesError("an edit that does not parse", "haproxy.cfg.tmpl:1")
		e.template(`# three {{fail "no"}}`)
		e.wantTemplatesError("an edit that does not render", "no")
		e.template("# four" + names)
		e.wantTemplatesError("a good edit", "")
		e.services("b")
		for _, text := range e.applier.take() {
			if !strings.HasPrefix(text, "# one") {
				t.Errorf("%q was applied during the rollback", text)
			}
		}
		files, _ := e.reconciler.Desired()
		if got := strings.TrimSpace(string(files.Config())); got != "# four b" {
			t.Errorf("desired: %q, want what Resume would bring", got)
		}
		e.resume()
		e.wantRuns("the end", "# four b")
	})
}

// certificates are all paths there are, and those that are followed.
type certificates struct {
	text     string
	followed []string
	changed  chan struct{}
}

func (c *certificates) Changed() <-chan struct{} { return c.changed }

func (c *certificates) Read(paths []string) map[string]watch.Outside {
	c.followed = paths
	found := map[string]watch.Outside{}
	for _, p := range paths {
		found[p] = watch.Outside{Files: map[string]string{p: c.text}}
	}
	return found
}

func TestARollbackFollowsItsOwnCertificates(t *testing.T) {
	pki := testkit.NewPKI(t)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c := &certificates{text: pki.Server("a"), changed: make(chan struct{})}
		e := startWith(t, reconcile.Options{StateDir: dir, Outside: c})
		e.services("a")
		e.template("frontend f\n bind :1 ssl crt /old.pem\n#" + names)
		e.template("frontend f\n bind :1 ssl crt /new.pem\n#" + names)
		e.rollback("back", 0, 1)
		e.services("b")
		if !slices.Contains(c.followed, "/old.pem") {
			t.Errorf("followed: %q; want what HAProxy serves", c.followed)
		}
		files, _ := e.reconciler.Desired()
		if !files.Has("outside/new.pem") || files.Has("outside/old.pem") {
			t.Errorf("desired: %q", files.Names())
		}
		e.resume()
		if !slices.Equal(c.followed, []string{"/new.pem"}) {
			t.Errorf("followed in the end: %q", c.followed)
		}
	})
}

func TestARollbackThatDoesNotWorkChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		e := startIn(t, dir)
		_, err := e.reconciler.Rollback(t.Context(), 1)
		e.wantRefusal("before the first records", err, "not been read from etcd yet")
		e.services("a")
		e.template("# one" + names)
		e.template("# two" + names)
		e.applier.refuses("# one", errReload)
		_, err = e.reconciler.Rollback(t.Context(), 0)
		e.wantRefusal("a set that HAProxy refuses", err, "could not be loaded")
		e.wantRuns("afterwards", "# two a")
		e.wantState("afterwards", reconcile.StateFollowing)
		_, err = e.reconciler.Rollback(t.Context(), 9)
		e.wantRefusal("a set that is not there", err, "no template set 9")
		if _, err := os.Stat(filepath.Join(dir, "order.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the order's file: %v, want none", err)
		}
		e.services("b")
		e.wantRuns("a change", "# two b")
	})
}

func TestARollbackOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startWith(t, reconcile.Options{StateDir: dir, Render: render.Options{Settings: map[string]string{"page": "old"}}})
		e.services("a")
		e.template(`# one {{setting "page"}}` + names)
		e.stop()
		e = startWith(t, reconcile.Options{StateDir: dir, Render: render.Options{Settings: map[string]string{"page": "new"}}})
		e.services("a")
		e.template(`# one {{setting "page"}}` + names)
		e.wantRuns("with another setting", "# one new a")
		e.rollback("to the other setting", 0, 1)
		e.wantRuns("rolled back", "# one old a")
		e.stop()

		e = startWith(t, reconcile.Options{StateDir: dir, Render: render.Options{Settings: map[string]string{"page": "new"}}})
		e.wantState("after a restart, without etcd", reconcile.StateRolledBack)
		e.template(`# one {{setting "page"}}` + names)
		e.services("b")
		e.wantRuns("after a restart", "# one old b")
		e.resume()
		e.wantRuns("the end", "# one new b")
		e.stop()
		if sets, err := reconcile.TemplateSets(dir); err != nil || len(sets) != 2 {
			t.Errorf("template sets: %+v, %v; want two", sets, err)
		}
	})
}

func TestTheLastGoodTemplatesServeAfterARestartToo(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, dir)
		e.services("a")
		e.template("# good" + names)
		e.stop()
		e = startIn(t, dir)
		e.template("# new {{if")
		e.services("b")
		e.wantRuns("with a mistake made meanwhile", "# good b")
		e.wantState("with a mistake made meanwhile", reconcile.StateFallback)
	})
}

func TestAfterARestartTheTemplatesOfTodayComeFirst(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, dir)
		e.services("a")
		e.template("# old" + names)
		e.stop()
		e = startIn(t, dir)
		e.services("a")
		e.wantTaken("before the templates have been read")
		e.template("# new" + names)
		e.wantTaken("once they have been", "# new a")
	})
}

func TestFreezeKeepsExactlyWhatRuns(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startWith(t, reconcile.Options{StateDir: dir, ShrinkHold: time.Minute})
		_, err := e.reconciler.Freeze(t.Context(), 0)
		e.wantRefusal("before anything runs", err, "runs nothing yet")
		_, err = e.reconciler.Freeze(t.Context(), 5)
		e.wantRefusal("a generation that is not there", err, "no generation 5")
		e.template("# one" + names)
		e.services("a", "b")
		if frozen, err := e.reconciler.Freeze(t.Context(), 0); err != nil || frozen.Generation != 7 || frozen.TemplateSet != 1 {
			t.Errorf("Freeze: %+v, %v", frozen, err)
		}
		e.wantState("frozen", reconcile.StateFrozen)
		e.applier.take()
		e.services("c", "d")
		e.template("# two" + names)
		e.services()
		e.wantTaken("while frozen")
		// Everything is answered at once all the same.
		e.accepts("the hold of c and d", true)
		e.reconciler.Retry()
		e.wantTaken("after Retry", "# one a b")
		if files, _ := e.reconciler.Desired(); strings.TrimSpace(string(files.Config())) != "# two" {
			t.Errorf("desired: %q, want what Resume would bring", files.Config())
		}
		e.stop()

		e = startIn(t, dir)
		e.wantTaken("after a restart, without etcd", "# one a b")
		e.wantState("after a restart", reconcile.StateFrozen)
		e.template("# two" + names)
		e.services("e")
		e.wantTaken("then")
		e.rollback("from a freeze", 1, 1)
		e.wantRuns("from a freeze", "# one e")
		e.resume()
		e.wantRuns("the end", "# two e")
	})
}

func TestFrozenFilesAreTriedUntilTheyRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, dir)
		e.template("# one" + names)
		e.services("a")
		if _, err := e.reconciler.Freeze(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		e.applier.refuses("# one", errDisk)
		e.applier.outdated <- struct{}{}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := e.reconciler.Status(); got.ApplyError != errDisk.Error() || got.Retry.IsZero() {
			t.Errorf("status %+v, want the error and when it is tried again", got)
		}
		if n := len(e.applier.take()); n < 5 || n > 15 {
			t.Errorf("%d attempts in a minute, want some with growing pauses", n)
		}
		e.applier.refuses("", nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if got := e.reconciler.Status(); got.ApplyError != "" {
			t.Errorf("error %q once they run, want none", got.ApplyError)
		}
	})
}

// An operator's terminal may go away; the order does not.
func TestAnOrderIsFinishedWhateverHappensToItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, t.TempDir())
		e.services("a")
		e.template("# one" + names)
		e.template("# two" + names)
		e.applier.slow = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := e.reconciler.Rollback(ctx, 0)
		e.wantRefusal("a caller that has gone", err, "still being carried out")
		time.Sleep(2 * time.Minute)
		e.wantState("later", reconcile.StateRolledBack)
		e.wantRuns("later", "# one a")
	})
}

func TestAnOrderThatCannotBeTakenUpIsDroppedAndLogged(t *testing.T) {
	for name, text := range map[string]string{
		"its template set is gone": `{"rolled_back":{"template_set":7}}`,
		"it cannot be read":        `{"frozen":`,
		"its files are no set":     `{"frozen":{"generation":3},"files":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "order.json")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				e := startIn(t, dir)
				e.wantState("then", reconcile.StateWaiting)
				e.stop()
				if !strings.Contains(e.log.String(), "dropped") {
					t.Errorf("the log does not say that it was dropped:\n%s", e.log)
				}
				if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the order's file: %v, want it gone", err)
				}
			})
		})
	}
}

func TestOnlySoManyTemplateSetsAreKept(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		e := startWith(t, reconcile.Options{StateDir: dir, KeepTemplateSets: 3})
		e.services("a")
		for _, text := range []string{"one", "two", "three", "four", "five", "four"} {
			e.template("# " + text + names)
			time.Sleep(time.Minute)
		}
		e.stop()
	})
	sets, err := reconcile.TemplateSets(dir)
	var numbers []int64
	for _, s := range sets {
		numbers = append(numbers, s.Number)
		if s.LastRun.Sub(s.FirstRun) < time.Minute {
			t.Errorf("set %d ran from %v to %v, want a minute at least", s.Number, s.FirstRun, s.LastRun)
		}
	}
	if err != nil || len(numbers) != 3 || numbers[0] != 4 || numbers[2] != 6 {
		t.Errorf("sets %v, %v; want 4, 5 and 6", numbers, err)
	}
	info, err := os.Stat(filepath.Join(dir, "template-sets", "6.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v; want mode 0600, since settings may be secrets", info, err)
	}
}

// The loop does a pass for each event and for each time that is due, and none besides.
func TestTheLoopDoesNotSpin(t *testing.T) {
	for name, begin := range map[string]func(*env){
		"while HAProxy never comes up": func(e *env) {
			e.applier.refuses("#", errDisk)
			e.template("# one" + names)
			e.services("a")
		},
		"while every reload fails": func(e *env) {
			e.template("# one" + names)
			e.services("a")
			e.applier.refuses("#", errReload)
			e.services("b")
		},
		"while new templates fail": func(e *env) {
			e.template("# one" + names)
			e.services("a")
			e.applier.refuses("# two", nil)
			e.template("# two" + names)
		},
		"while frozen files fail": func(e *env) {
			e.template("# one" + names)
			e.services("a")
			if _, err := e.reconciler.Freeze(e.t.Context(), 0); err != nil {
				e.t.Fatal(err)
			}
			e.applier.refuses("#", errDisk)
			e.applier.outdated <- struct{}{}
		},
		"without etcd":      func(e *env) { e.template("# one" + names) },
		"without templates": func(e *env) { e.services("a") },
		"while HAProxy runs something else again and again": func(e *env) {
			e.template("# one" + names)
			e.services("a")
			for range 600 {
				e.applier.outdated <- struct{}{}
				time.Sleep(time.Second / 10)
			}
			synctest.Wait()
			e.applier.mu.Lock()
			defer e.applier.mu.Unlock()
			if n := len(e.applier.given); n > 63 {
				e.t.Errorf("%d attempts in a minute of signals, want one a second", n)
			}
			e.applier.passes = 0
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				e := startIn(t, dir)
				begin(e)
				time.Sleep(time.Hour)
				synctest.Wait()
				e.applier.mu.Lock()
				defer e.applier.mu.Unlock()
				// The shortest limit of a growing pause is 30 s: 120 in an hour, and a few at the start.
				if e.applier.passes > 150 {
					t.Errorf("%d passes in an hour", e.applier.passes)
				}
			})
		})
	}
}

// A change that needs no reload must not wait for a pause after a reload that failed.
func TestWhileReloadsFailChangesWithoutOneGoThrough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startIn(t, t.TempDir())
		e.template("# one" + names)
		e.services("a")
		e.applier.refuses("bad", errReload)
		e.services("a", "bad")
		e.applier.take()
		time.Sleep(3 * time.Second)
		e.services("a", "bad", "c")
		e.services("a", "c")
		e.applier.mu.Lock()
		if n := e.applier.noReload; n != 2 {
			t.Errorf("%d of the attempts without a reload, want 2", n)
		}
		e.applier.mu.Unlock()
		e.wantRuns("the change that needs none", "# one a c")
		e.wantState("then", reconcile.StateFollowing)
		e.services("a", "bad")
		e.applier.take()
		time.Sleep(5 * time.Second)
		e.wantTaken("8 s after the reload that failed")
		time.Sleep(2100 * time.Millisecond)
		e.wantTaken("10 s after it", "# one a bad")
	})
}
