package reconcile_test

import (
	"bytes"
	"context"
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
	"nuncio/reconcile"
	"nuncio/reload"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judgeApplier applies at once and refuses what a test tells it to. The real one is driven by the scripts of cmd/nuncio;
// here the order of decisions is what matters, under a clock that a test controls.
type judgeApplier struct {
	mu      sync.Mutex
	refuse  string // files that contain this are refused
	result  reload.Outcome
	busy    []reload.Taken // why
	dear    bool           // refusals are reloads that failed
	slow    time.Duration  // between Submit and the outcome
	applies []reload.Result
	digest  string   // of what was handed over last
	taken   []string // every configuration handed over
	ordered []string // those of them that an operator's order is behind
	changed chan struct{}
}

func newJudge() *judgeApplier { return &judgeApplier{changed: make(chan struct{})} }

func (j *judgeApplier) Submit(_ context.Context, d reload.Desired) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	text := string(d.Files.Config())
	a := reload.Result{Time: time.Now(), Duration: j.slow, Digest: d.Files.Digest(), Outcome: reload.Reloaded}
	if j.refuse != "" && strings.Contains(text, j.refuse) {
		a.Outcome, a.Reason, a.Taken, a.ReloadFailed = j.result, "refused: "+j.refuse, j.busy, j.dear
	}
	j.taken, j.digest = append(j.taken, strings.TrimSpace(text)), a.Digest
	if d.Now {
		j.ordered = append(j.ordered, strings.TrimSpace(text))
	}
	if j.slow == 0 {
		j.record(a)
		return nil
	}
	time.AfterFunc(j.slow, func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.record(a)
	})
	return nil
}

func (j *judgeApplier) record(a reload.Result) {
	j.applies = append(j.applies, a)
	close(j.changed)
	j.changed = make(chan struct{})
}

// relent refuses nothing any more, and says so of what was handed over last: an applier goes on trying that by itself.
func (j *judgeApplier) relent() {
	time.Sleep(time.Millisecond)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refuse = ""
	j.record(reload.Result{Time: time.Now(), Digest: j.digest, Outcome: reload.Reloaded})
}

func (j *judgeApplier) Status() reload.Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return reload.Status{Applies: slices.Clone(j.applies)}
}

func (j *judgeApplier) Changed() <-chan struct{} {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.changed
}

func (j *judgeApplier) take() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := j.taken
	j.taken = nil
	return t
}

// bench is a running Follower and both ends of its channels.
type bench struct {
	t         *testing.T
	judge     *judgeApplier
	follower  *reconcile.Follower
	snapshots chan *catalog.Snapshot
	trees     chan map[string]string
	log       bytes.Buffer
	revision  int64
}

func start(t *testing.T) *bench { return startHolding(t, 0) }

func startHolding(t *testing.T, hold time.Duration) *bench {
	b := &bench{t: t, judge: newJudge(), snapshots: make(chan *catalog.Snapshot), trees: make(chan map[string]string)}
	b.follower = reconcile.New(reconcile.Options{Applier: b.judge, Hold: hold, Logger: slog.New(slog.NewTextHandler(&b.log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- b.follower.Run(ctx, b.snapshots, b.trees) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run after its context ended: %v, want nil", err)
		}
	})
	return b
}

// services delivers a snapshot in which the service web has these instances.
func (b *bench) services(names ...string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for _, name := range names {
		builder.Put("/services/web/"+name, []byte("192.0.2.1:80"))
	}
	b.revision++
	b.snapshots <- builder.Snapshot(b.revision)
	synctest.Wait()
}

func (b *bench) template(text string) {
	b.trees <- map[string]string{"haproxy.cfg.tmpl": text + "\n"}
	synctest.Wait()
}

func (b *bench) wantTaken(what string, want ...string) {
	b.t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, b.judge.take()); diff != "" {
		b.t.Errorf("%s: configurations handed over (-want +got):\n%s", what, diff)
	}
}

const names = `{{range (service "web").Instances}} {{.Name}}{{end}}`

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
				b := start(t)
				b.judge.refuse, b.judge.result = "# refused", reload.Rejected
				b.template("# good" + names)
				b.services("a")
				b.wantTaken("a good start", "# good a")

				b.template(c.text)
				b.judge.take()
				if got := b.follower.Status().TemplatesError; !strings.Contains(got, c.complaint) {
					t.Errorf("TemplatesError is %q, want it to contain %q", got, c.complaint)
				}
				b.services("a", "b")
				b.wantTaken("a change of services, undelayed by templates that are known to fail", "# good a b")
				time.Sleep(2 * time.Second)
				// By then there may have been a second trial: pauses are random.
				if got := b.judge.take(); c.trials && (len(got) < 2 || !slices.Equal(got[:2], []string{"# refused a b", "# good a b"})) {
					t.Errorf("a moment after the change: handed over %q, want the new templates to be tried again", got)
				}

				b.template("# better" + names)
				b.wantTaken("put right", "# better a b")
				if got := b.follower.Status().TemplatesError; got != "" {
					t.Errorf("TemplatesError after the repair is %q, want none", got)
				}
				b.services("c")
				b.wantTaken("afterwards", "# better c")
			})
		})
	}
}

// An edit may come before the very first templates are known to work.
func TestTheFirstTemplatesAreNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.judge.slow, b.judge.refuse, b.judge.result = time.Second, "# refused", reload.Rejected
		b.template("# good" + names)
		b.services("a")
		time.Sleep(time.Second / 2)
		b.template("# refused" + names)
		b.wantTaken("two trials", "# good a", "# refused a")
		time.Sleep(time.Second + time.Millisecond)
		b.wantTaken("fall back", "# good a")
	})
}

// The operator's mistake may come before the first templates work; they are the last good ones all the same.
func TestTheFirstTemplatesAreFollowedPastAMistake(t *testing.T) {
	const good = "# good" + names
	for _, c := range []struct {
		name  string
		begin func(b *bench, mistake string)
	}{
		{"before there is a snapshot", func(b *bench, mistake string) {
			b.template(good)
			b.template(mistake)
			b.services("a")
		}},
		{"while they are being applied", func(b *bench, mistake string) {
			b.judge.slow = time.Second
			b.template(good)
			b.services("a")
			time.Sleep(time.Second / 2)
			b.template(mistake)
			time.Sleep(5 * time.Second)
		}},
		{"after they failed, until the applier's own retry", func(b *bench, mistake string) {
			b.judge.refuse, b.judge.result = "# good", reload.Failed
			b.template(good)
			b.services("a")
			b.template(mistake)
			b.judge.relent()
		}},
		{"after they failed, with a change before the retry", func(b *bench, mistake string) {
			b.judge.refuse, b.judge.result = "# good", reload.Failed
			b.template(good)
			b.services("b")
			b.template(mistake)
			b.template(mistake + "!")
			b.services("a")
			b.judge.relent()
		}},
	} {
		for what, mistake := range map[string]string{"that does not parse": "# new {{if", "that does not render": `# new {{fail "no"}}`} {
			t.Run(c.name+" comes one "+what, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := start(t)
					c.begin(b, mistake)
					synctest.Wait()
					b.judge.take()
					if got := b.follower.Status().TemplatesError; !strings.Contains(got, "haproxy.cfg.tmpl:1") {
						t.Errorf("TemplatesError is %q, want the mistake", got)
					}
					b.services("a", "b")
					b.wantTaken("a change of services", "# good a b")
					time.Sleep(5 * time.Second)
					b.judge.take()

					b.judge.refuse, b.judge.result = "# refused", reload.Rejected
					b.template("# refused" + names)
					time.Sleep(5 * time.Second)
					if got := b.judge.take(); len(got) < 2 || !slices.Equal(got[:2], []string{"# refused a b", "# good a b"}) {
						t.Errorf("an edit that HAProxy refuses: handed over %q, want a return to the first templates", got)
					}
				})
			})
		}
	}
}

// The applier goes on trying the first templates by itself, and may have had success when an edit replaces them.
func TestTheFirstTemplatesAreGoodOnceTheApplierMadeThemWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.judge.refuse, b.judge.result = "# good", reload.Failed
		b.template("# good" + names)
		b.services("a")
		b.judge.relent()
		synctest.Wait()
		if got := b.follower.Status().TemplatesError; got != "" {
			t.Errorf("TemplatesError is %q, want none", got)
		}
		b.judge.refuse, b.judge.result = "# refused", reload.Rejected
		b.template("# refused" + names)
		b.wantTaken("start, edit, return", "# good a", "# refused a", "# good a")
	})
}

func TestATemplateThatFailedIsTriedAgainWithoutAnybodyDoingAnything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.judge.refuse, b.judge.result = "# busy", reload.Failed
		b.template("# good" + names)
		b.services("a")
		b.template("# busy" + names)
		b.wantTaken("start, trial, fall back", "# good a", "# busy a", "# good a")
		time.Sleep(5 * time.Minute)
		if n := len(b.judge.take()); n < 6 || n > 40 {
			t.Errorf("%d configurations handed over in five minutes, want a few trials with growing pauses", n)
		}
		if n := strings.Count(b.log.String(), "templates not in use"); n != 1 {
			t.Errorf("the same error is logged %d times, want once:\n%s", n, b.log.String())
		}
		b.judge.mu.Lock()
		b.judge.refuse = ""
		b.judge.mu.Unlock()
		time.Sleep(2 * time.Minute)
		if got := b.judge.take(); len(got) == 0 || got[len(got)-1] != "# busy a" {
			t.Errorf("once the address is free: handed over %q, want the new templates' last", got)
		}
		if got := b.follower.Status().TemplatesError; got != "" {
			t.Errorf("TemplatesError is %q, want none", got)
		}
	})
}

func TestAnEditThatComesDuringATrialDoesNotUndoTheTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.template("# one" + names)
		b.services("a")
		b.judge.slow = time.Second
		b.trees <- map[string]string{"haproxy.cfg.tmpl": "# two" + names + "\n"}
		b.trees <- map[string]string{"haproxy.cfg.tmpl": "# three {{if"}
		time.Sleep(5 * time.Second)
		b.judge.take()
		b.services("a", "b")
		b.wantTaken("after a good and a broken edit in a row", "# two a b")
	})
}

func TestTheFirstTemplatesStayWantedWhateverHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.judge.refuse, b.judge.result = "# first", reload.Rejected
		b.template("# first" + names)
		b.services("a")
		b.wantTaken("no fall-back", "# first a")
		b.services("a", "b")
		b.wantTaken("with every change", "# first a b")
	})
}

func TestRetryGoesThroughEverythingAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.template("# good" + names)
		b.services("a")
		b.judge.take()
		b.follower.Retry()
		b.wantTaken("after Retry", "# good a")
		b.services("b")
		b.wantTaken("a change after that", "# good b")
		if diff := cmp.Diff([]string{"# good a"}, b.judge.ordered); diff != "" {
			t.Errorf("handed over as an operator's order (-want +got):\n%s", diff)
		}
	})
}

func TestALineThatIsLeftOutIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t)
		b.template("backend b\n#" + names + "\n server x {{\"unix@/run/x\"}}\n server y 192.0.2.1:80")
		b.services("a")
		b.services("a", "b")
		if n := strings.Count(b.log.String(), "line left out"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, b.log.String())
		}
		if got := b.follower.Status().Dropped; len(got) != 1 {
			t.Errorf("Refused is %v, want the one line", got)
		}
	})
}
