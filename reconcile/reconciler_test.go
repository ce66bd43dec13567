package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeApplier applies what it is given unless a test has it refuse that. The real one is driven by the scripts of cmd/nuncio;
// here the order of decisions is what matters, under a clock that a test controls.
type fakeApplier struct {
	mu       sync.Mutex
	refuse   string // files that contain this are refused
	err      error  // with this; nil: because they are rejected
	slow     time.Duration
	given    []string // every configuration since the last take
	noReload int      // of those, how many with NoReload
	last     reload.Desired
	outdated chan struct{}
	passes   int // of the loop: each looks at Outdated once

	structured bool          // a change of the words that begin with "reload" needs a reload; of the others a part never does
	running    haproxy.Files // what was applied, with structured
	reloads    int
}

func newFakeApplier() *fakeApplier { return &fakeApplier{outdated: make(chan struct{}, 1)} }

func (a *fakeApplier) Apply(ctx context.Context, d reload.Desired) (reload.Result, error) {
	a.mu.Lock()
	text, slow := strings.TrimSpace(string(d.Files.Config())), a.slow
	a.given, a.last = append(a.given, text), d
	if d.NoReload {
		a.noReload++
	}
	a.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return reload.Result{}, context.Cause(ctx)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.structured {
		return a.applyStructured(d)
	}
	r := reload.Result{Time: time.Now(), Duration: slow, Digest: d.Files.Digest(), Outcome: reload.Reloaded, Generation: 7, Revision: d.Revision, TemplateSet: d.TemplateSet}
	if a.refuse == "" || !strings.Contains(text, a.refuse) {
		if d.NoReload {
			r.Outcome = reload.Runtime
		}
		return r, nil
	}
	if d.NoReload {
		return reload.Result{}, reload.ErrReloadNeeded
	}
	if a.err != nil {
		return r, a.err
	}
	return r, &reload.CheckError{Reason: "refused: " + a.refuse}
}

func (a *fakeApplier) Outdated() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.passes++; a.passes > 50_000 {
		panic("the loop spins") // under a clock that stands still nothing else would end it
	}
	return a.outdated
}

// refuses sets what is refused, and why; an empty text ends that.
func (a *fakeApplier) refuses(text string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse, a.err = text, err
}

func (a *fakeApplier) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	t := a.given
	a.given, a.noReload = nil, 0
	return t
}

var (
	errDisk   = errors.New("refused: disk full")
	errReload = &reload.ReloadError{Err: errors.New("refused: could not be loaded")}
)

// env is a running Reconciler and both ends of its channels.
type env struct {
	t          *testing.T
	applier    *fakeApplier
	reconciler *reconcile.Reconciler
	snapshots  chan *catalog.Snapshot
	trees      chan map[string]string
	log        *bytes.Buffer
	revision   int64
	stop       func()
}

func start(t *testing.T) *env { return startWith(t, reconcile.Options{}) }

func startWith(t *testing.T, opts reconcile.Options) *env {
	t.Helper()
	e := &env{t: t, applier: newFakeApplier(), snapshots: make(chan *catalog.Snapshot), trees: make(chan map[string]string), log: &bytes.Buffer{}}
	opts.Applier, opts.Logger = e.applier, slog.New(slog.NewTextHandler(e.log, nil))
	r, err := reconcile.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	e.reconciler = r
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx, e.snapshots, e.trees) }()
	e.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run after its context ended: %v, want nil", err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

// services delivers a snapshot in which the service web has these instances.
func (e *env) services(names ...string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for _, name := range names {
		builder.Put("/services/web/"+name, []byte("192.0.2.1:80"))
	}
	e.revision++
	e.snapshots <- builder.Snapshot(e.revision)
	synctest.Wait()
}

func (e *env) template(text string) {
	e.trees <- map[string]string{"haproxy.cfg.tmpl": text + "\n"}
	synctest.Wait()
}

func (e *env) wantTaken(what string, want ...string) {
	e.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, e.applier.take()); diff != "" {
		e.t.Errorf("%s: configurations given (-want +got):\n%s", what, diff)
	}
}

const names = `{{range (service "web").Instances}} {{.Name}}{{end}}`

func (e *env) wantTemplatesError(what, want string) {
	e.t.Helper()
	if got := e.reconciler.Status().TemplatesError; want == "" && got != "" || !strings.Contains(got, want) {
		e.t.Errorf("%s: TemplatesError is %q, want %q", what, got, want)
	}
}

func (e *env) wantState(what string, want reconcile.State) {
	e.t.Helper()
	synctest.Wait()
	if got := e.reconciler.Status().State; got != want {
		e.t.Errorf("%s: state %s, want %s", what, got, want)
	}
}

func TestABrokenTemplateDoesNotStopChangesOfServices(t *testing.T) {
	for _, c := range []struct {
		name, text, complaint string
		trials                bool
	}{
		{"it does not parse", "# new {{if", "haproxy.cfg.tmpl:1", false},
		{"it fails while it renders", `# new {{fail "no"}}`, "haproxy.cfg.tmpl:1", false},
		{"HAProxy refuses what it renders", "# refused" + names, "refused", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := start(t)
				e.applier.refuses("# refused", nil)
				e.template("# good" + names)
				e.services("a")
				e.wantTaken("a good start", "# good a")
				e.wantState("a good start", reconcile.StateFollowing)

				e.template(c.text)
				e.applier.take()
				e.wantTemplatesError("after the mistake", c.complaint)
				e.wantState("after the mistake", reconcile.StateFallback)
				e.services("a", "b")
				e.wantTaken("a change of services, undelayed by templates that are known to fail", "# good a b")
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got := e.applier.take(); c.trials && (len(got) < 2 || !slices.Equal(got[:2], []string{"# refused a b", "# good a b"})) {
					t.Errorf("a moment after the change: given %q, want the new templates to be tried again", got)
				}

				e.template("# better" + names)
				e.wantTaken("put right", "# better a b")
				e.wantTemplatesError("put right", "")
				e.wantState("put right", reconcile.StateFollowing)
				e.services("c")
				e.wantTaken("afterwards", "# better c")
			})
		})
	}
}

// An edit may come before the very first templates are known to work.
func TestTheFirstTemplatesAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.applier.slow = time.Second
		e.applier.refuses("# refused", nil)
		e.template("# good" + names)
		e.services("a")
		e.trees <- map[string]string{"haproxy.cfg.tmpl": "# refused" + names}
		time.Sleep(2*time.Second + time.Millisecond)
		e.wantTaken("start, edit, fall back", "# good a", "# refused a", "# good a")
	})
}

// The operator's mistake may come before the first templates work; they are the last good ones all the same.
func TestTheFirstTemplatesAreFollowedPastAMistake(t *testing.T) {
	const good = "# good" + names
	for _, c := range []struct {
		name  string
		begin func(e *env, mistake string)
	}{
		{"before there is a snapshot", func(e *env, mistake string) {
			e.template(good)
			e.template(mistake)
			e.services("a")
		}},
		{"while they are being applied", func(e *env, mistake string) {
			e.applier.slow = time.Second
			e.template(good)
			e.services("a")
			e.template(mistake)
			time.Sleep(5 * time.Second)
			e.applier.slow = 0
		}},
		{"after they failed, until they are tried again", func(e *env, mistake string) {
			e.applier.refuses("# good", errDisk)
			e.template(good)
			e.services("a")
			e.template(mistake)
			e.applier.refuses("", nil)
			time.Sleep(time.Second)
		}},
		{"after they failed, with a change before they are tried again", func(e *env, mistake string) {
			e.applier.refuses("# good", errDisk)
			e.template(good)
			e.services("b")
			e.template(mistake)
			e.template(mistake + "!")
			e.services("a")
			e.applier.refuses("", nil)
			time.Sleep(2 * time.Second)
		}},
	} {
		for what, mistake := range map[string]string{"that does not parse": "# new {{if", "that does not render": `# new {{fail "no"}}`} {
			t.Run(c.name+" comes one "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := start(t)
					c.begin(e, mistake)
					synctest.Wait()
					e.applier.take()
					e.wantTemplatesError("at first", "haproxy.cfg.tmpl:1")
					e.services("a", "b")
					e.wantTaken("a change of services", "# good a b")
					e.wantState("then", reconcile.StateFallback)
					time.Sleep(5 * time.Second)
					e.applier.take()

					e.applier.refuses("# refused", nil)
					e.template("# refused" + names)
					time.Sleep(5 * time.Second)
					if got := e.applier.take(); len(got) < 2 || !slices.Equal(got[:2], []string{"# refused a b", "# good a b"}) {
						t.Errorf("an edit that HAProxy refuses: given %q, want a return to the first templates", got)
					}
				})
			})
		}
	}
}

func TestTheFirstTemplatesAreTriedUntilTheyWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.applier.refuses("# good", errDisk)
		e.template("# good" + names)
		e.services("a")
		e.wantState("at first", reconcile.StateFailing)
		e.applier.refuses("", nil)
		time.Sleep(time.Second)
		synctest.Wait()
		e.wantTemplatesError("once they work", "")
		e.wantState("once they work", reconcile.StateFollowing)
		e.applier.take()
		e.applier.refuses("# refused", nil)
		e.template("# refused" + names)
		e.wantTaken("edit, return", "# refused a", "# good a")
	})
}

func TestTemplatesThatFailedAreTriedAgainByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.applier.refuses("# busy", errDisk)
		e.template("# good" + names)
		e.services("a")
		e.template("# busy" + names)
		e.wantTaken("start, trial, fall back", "# good a", "# busy a", "# good a")
		time.Sleep(5 * time.Minute)
		if n := len(e.applier.take()); n < 6 || n > 40 {
			t.Errorf("%d attempts in five minutes, want a few with growing pauses", n)
		}
		if n := strings.Count(e.log.String(), "templates not in use"); n != 1 {
			t.Errorf("the same error is logged %d times, want once:\n%s", n, e.log.String())
		}
		e.applier.refuses("", nil)
		time.Sleep(2 * time.Minute)
		if got := e.applier.take(); len(got) == 0 || got[len(got)-1] != "# busy a" {
			t.Errorf("once the cause is gone: given %q, want the new templates' last", got)
		}
		e.wantTemplatesError("once the cause is gone", "")
	})
}

func TestAnEditThatComesDuringATrialDoesNotUndoTheTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("# one" + names)
		e.services("a")
		e.applier.slow = time.Second
		e.trees <- map[string]string{"haproxy.cfg.tmpl": "# two" + names + "\n"}
		e.trees <- map[string]string{"haproxy.cfg.tmpl": "# three {{if"}
		time.Sleep(5 * time.Second)
		e.applier.take()
		e.applier.slow = 0
		e.services("a", "b")
		e.wantTaken("after a good and a broken edit in a row", "# two a b")
	})
}

func TestTheFirstTemplatesAreTriedWithEveryChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.applier.refuses("# first", nil)
		e.template("# first" + names)
		e.services("a")
		e.wantTaken("no fall-back", "# first a")
		e.services("a", "b")
		e.wantTaken("with every change", "# first a b")
	})
}

func TestAnEditThatIsUndoneNeedsNoTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.applier.refuses("# refused", nil)
		e.template("# good" + names)
		e.services("a")
		e.template("# refused" + names)
		e.wantTemplatesError("the mistake", "refused")
		e.template("# good" + names)
		e.wantTemplatesError("undone", "")
		e.wantState("undone", reconcile.StateFollowing)
		e.applier.take()
		e.services("b")
		time.Sleep(time.Hour)
		e.wantTaken("afterwards", "# good b")
	})
}

func TestRetryTriesEverythingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("# good" + names)
		e.services("a")
		e.applier.take()
		e.reconciler.Retry()
		e.wantTaken("after Retry", "# good a")
		e.services("b")
		e.wantTaken("a change after that", "# good b")
	})
}

func TestWhatHAProxyNoLongerRunsIsAppliedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("# good" + names)
		e.services("a")
		e.applier.take()
		time.Sleep(time.Minute)
		e.applier.outdated <- struct{}{}
		e.wantTaken("at once", "# good a")
		e.applier.outdated <- struct{}{}
		e.wantTaken("again at once")
		time.Sleep(time.Second)
		e.wantTaken("a second later", "# good a")
	})
}

func TestASnapshotThatCannotBeRenderedLeavesWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template(`# good{{range (service "web").Instances}} {{.Name}}{{if eq .Name "bad"}}{{fail "bad name"}}{{end}}{{end}}`)
		e.services("a")
		e.services("bad")
		e.services("bad", "b")
		e.wantTaken("up to the bad ones", "# good a")
		if got := e.reconciler.Status().RenderError; !strings.Contains(got, "bad name") {
			t.Errorf("RenderError is %q, want the reason", got)
		}
		e.wantState("with a bad name", reconcile.StateFailing)
		e.services("b")
		e.wantTaken("put right", "# good b")
		if got := e.reconciler.Status().RenderError; got != "" {
			t.Errorf("RenderError is %q, want none", got)
		}
		e.wantState("put right", reconcile.StateFollowing)
	})
}

func TestALineThatIsDroppedIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		e.template("backend b\n#" + names + "\n server x {{\"unix@/run/x\"}}\n server y 192.0.2.1:80")
		e.services("a")
		e.services("a", "b")
		if n := strings.Count(e.log.String(), "line dropped"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, e.log.String())
		}
		if got := e.reconciler.Status().Dropped; len(got) != 1 {
			t.Errorf("Dropped is %v, want the one line", got)
		}
	})
}

func TestDesiredIsWhatWouldRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t)
		if _, known := e.reconciler.Desired(); known {
			t.Error("something is desired before anything is known")
		}
		e.template("# good" + names)
		e.services("a")
		e.applier.refuses("b", errDisk)
		e.services("b")
		files, known := e.reconciler.Desired()
		if got := strings.TrimSpace(string(files.Config())); !known || got != "# good b" {
			t.Errorf("desired: %q, %t; want what cannot be applied", got, known)
		}
	})
}
