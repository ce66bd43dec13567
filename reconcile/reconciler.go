package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/catalog"
	"nuncio/reload"
	"nuncio/render"
)

// Applier is the part of *reload.Manager that Follower needs.
type Applier interface {
	// Submit hands over what is wanted; it blocks while an apply is under way.
	Submit(ctx context.Context, desired reload.Desired) error
	// Status tells, among other things, how the last applies ended.
	Status() reload.Status
	// Changed is closed when Status changes.
	Changed() <-chan struct{}
}

var _ Applier = (*reload.Manager)(nil)

// Options say what a Follower works with. Applier is required.
type Options struct {
	Applier Applier
	// Render is given to every set of templates.
	Render render.Options
	// RetryMin and RetryMax bound the growing pause between two trials of templates that HAProxy would not run;
	// default 1 s and 1 min. Trials whose reload fails have longer ones.
	RetryMin, RetryMax time.Duration
	// Hold is how long instances that vanish from the store all at once are kept; 0 keeps none.
	Hold time.Duration
	// StateDir is where what is wanted is kept for the guard of the next start, and Prefix that of the records; without a
	// directory the first listing is believed.
	StateDir, Prefix string
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Status is what a Follower has to complain about.
type Status struct {
	// TemplatesError says why the newest templates are not in use; empty when they are.
	TemplatesError string
	// RenderError says why the templates in use could not render the newest snapshot; empty when they could.
	RenderError string
	// Dropped lists lines left out of the rendered files because of a value that fits nowhere.
	Dropped []render.Dropped
	// Hold is set while the shrink guard keeps instances that the store no longer has.
	Hold *Hold
	// Snapshot is what is rendered: the store's, with what the shrink guard keeps. It is nil before the first.
	Snapshot *catalog.Snapshot
}

// Follower keeps what is wanted in step with what is known.
type Follower struct {
	opts    Options
	metrics *metrics
	retry   chan struct{}
	accept  chan struct{}
	guard   guard

	whole     *catalog.Snapshot // what the guard lets through
	snap      *catalog.Snapshot // of that, what can be asked of HAProxy
	busy      busy
	blocked   map[string]bool   // keys of the records that only whole has
	looking   <-chan time.Time  // fires when a busy port is to be tried again
	good      *render.Templates // in use: HAProxy has run what they render
	candidate *render.Templates // newer than good, not proven yet
	next      schedule          // of the candidate's trials
	held      <-chan time.Time  // fires when a hold is over
	keep      chan *catalog.Snapshot
	earlier   *attempt        // until something is good: the templates before the candidate, as they were tried last
	failing   bool            // candidate has been tried and did not work
	ordered   bool            // what is submitted next is an operator's order
	sent      *attempt        // what is with the applier
	trial     *attempt        // the same, if it is the candidate's files, until it is decided whether they work
	refused   map[string]bool // lines that have been logged as left out

	mu     sync.Mutex
	status Status
}

// attempt is one to run some files.
type attempt struct {
	digest    string // empty if they could not be rendered yet
	since     time.Time
	templates *render.Templates
}

// New makes a Follower; it starts nothing.
func New(opts Options) *Follower {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.RetryMin <= 0 {
		opts.RetryMin = time.Second
	}
	if opts.RetryMax <= 0 {
		opts.RetryMax = time.Minute
	}
	return &Follower{
		opts: opts, metrics: newMetrics(opts.Registerer), retry: make(chan struct{}, 1), accept: make(chan struct{}, 1),
		guard: guard{hold: opts.Hold}, next: newSchedule(opts.RetryMin, opts.RetryMax), busy: busy{}, refused: map[string]bool{},
	}
}

// Status returns a copy that is safe to keep.
func (f *Follower) Status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.status
	s.Dropped = slices.Clone(s.Dropped)
	return s
}

// Retry makes the Follower go through everything once more, soon: for an operator's HUP.
func (f *Follower) Retry() {
	select {
	case f.retry <- struct{}{}:
	default: // one is due already
	}
}

// Accept ends a hold: what the store says is meant. It tells whether there was one.
func (f *Follower) Accept() bool {
	if f.Status().Hold == nil {
		return false
	}
	select {
	case f.accept <- struct{}{}:
	default: // one is due already
	}
	return true
}

// Run follows both channels until ctx ends, and then returns nil. A tree is a set of template texts by path.
func (f *Follower) Run(ctx context.Context, snapshots <-chan *catalog.Snapshot, trees <-chan map[string]string) error {
	var keeping sync.WaitGroup
	defer keeping.Wait()
	if b := newBaseline(f.opts); b != nil {
		f.guard.newest = b.load(time.Now())
		f.keep = make(chan *catalog.Snapshot, 1)
		keeping.Go(func() { b.run(ctx, f.keep) })
	}
	for {
		var changed <-chan struct{}
		if f.sent != nil || f.earlier != nil {
			changed = f.opts.Applier.Changed() // taken before the look, so that no change is missed
			f.judge(ctx)
		}
		if f.awaited(ctx, changed) {
			continue
		}
		again := true
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			continue
		case snap := <-snapshots:
			f.guarded(f.guard.take(time.Now(), snap))
			again = !f.failing
		case <-f.held:
			f.guarded(f.guard.tick(time.Now()))
			again = !f.failing
		case <-f.accept:
			f.guarded(f.guard.accept())
			again = !f.failing
		case <-f.looking:
			f.lookAgain(ctx)
			continue
		case tree := <-trees:
			f.parse(tree)
			f.renew()
		case <-f.retry:
			f.next.reset()
			f.ordered = true
			f.renew()
		case <-f.next.timer:
		}
		if f.snap != nil {
			f.pass(ctx, again)
		}
	}
}

// renew forgets which ports were taken: somebody has changed something.
func (f *Follower) renew() {
	if f.busy.release(); f.whole != nil {
		f.narrow()
	}
}

// trialWait bounds how long everything else waits for the end of a trial. The applier is busy with it anyway; a trial
// that takes longer is one that the applier was kept from, by a pinned generation.
const trialWait = 30 * time.Second

// awaited waits for the next news of a trial, if there is one whose outcome must be known before anything else is
// looked at: were its templates replaced unjudged, a later fall-back would undo an edit that HAProxy already runs.
func (f *Follower) awaited(ctx context.Context, changed <-chan struct{}) bool {
	if f.trial == nil || f.good == nil {
		return false
	}
	left := trialWait - time.Since(f.trial.since)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-changed:
	}
	return true
}

// parse makes a tree the candidate. A tree that does not parse leaves what is in use, and also drops an older
// candidate: the operator has moved on from it. Only while nothing is in use the older one is still wanted.
func (f *Follower) parse(tree map[string]string) {
	switch {
	case f.good != nil:
	case f.trial != nil:
		f.earlier = f.trial
	case f.earlier == nil && f.candidate != nil:
		f.earlier = &attempt{templates: f.candidate}
	}
	f.candidate, f.trial, f.failing = nil, nil, false
	f.next.reset()
	parsed, err := render.New(tree, f.opts.Render)
	if err != nil {
		f.templatesFailed(err)
		return
	}
	f.candidate = parsed
}

// pass makes one attempt to have everything up to date: with the candidate, or with the good templates where the
// candidate does not work. A candidate that is known to fail must not delay a change of services: again says whether it
// is tried at once, or only when its time comes, after the good templates have served the change.
func (f *Follower) pass(ctx context.Context, again bool) {
	f.sent, f.trial = nil, nil
	if f.candidate != nil && (again || f.good == nil) && f.try(ctx) {
		return
	}
	f.fallBack(ctx)
	if f.candidate != nil && !again && f.good != nil {
		f.next.changed()
	}
}

// try begins a trial of the candidate, if it can be rendered.
func (f *Follower) try(ctx context.Context) bool {
	f.next.disarm()
	result, err := f.render(f.candidate)
	if err != nil {
		f.failing = true
		f.templatesFailed(err)
		return false
	}
	f.rendered(result)
	f.trial = &attempt{digest: result.Files.Digest(), since: time.Now(), templates: f.candidate}
	f.submit(ctx, result)
	return true
}

// fallBack submits what the good templates make, or those before the candidate, which may be good yet. Without any, what
// was submitted last stays with the applier, which goes on trying it.
func (f *Follower) fallBack(ctx context.Context) {
	templates := f.good
	if templates == nil && f.earlier != nil {
		templates = f.earlier.templates
	}
	if templates == nil {
		return
	}
	result, err := f.render(templates)
	if err != nil {
		f.renderFailed(err)
		return
	}
	f.rendered(result)
	if f.good == nil {
		f.earlier = &attempt{digest: result.Files.Digest(), since: time.Now(), templates: templates}
	}
	f.submit(ctx, result)
}

func (f *Follower) submit(ctx context.Context, result *render.Result) {
	f.sent = &attempt{digest: result.Files.Digest(), since: time.Now()}
	// Its only error is that the applier or ctx has ended, which Run sees next.
	_ = f.opts.Applier.Submit(ctx, reload.Desired{Files: result.Files, Revision: f.snap.Revision, Now: f.ordered})
	f.ordered = false
}

// judge looks at how the applier's newest attempt with what it was sent has ended. The applier repeats a failed one,
// and starts HAProxy again when it has died, so there may be another outcome later.
func (f *Follower) judge(ctx context.Context) {
	applies := f.opts.Applier.Status().Applies
	if f.earlier != nil && slices.ContainsFunc(applies, f.earlier.worked) {
		f.use(f.earlier.templates)
		f.opts.Logger.Info("templates before the newest in use")
	}
	if f.sent == nil {
		return
	}
	for _, a := range slices.Backward(applies) {
		if a.Time.Before(f.sent.since) {
			return
		}
		if a.Digest != f.sent.digest {
			continue
		}
		f.sent.since = a.Time.Add(1)
		switch {
		case f.collided(a):
			f.pass(ctx, f.trial != nil)
		case f.trial != nil:
			f.judgeTrial(ctx, a)
		}
		return
	}
}

func (t *attempt) worked(a reload.Result) bool {
	return a.Digest == t.digest && !a.Time.Before(t.since) && !failed(a)
}

func failed(a reload.Result) bool { return a.Outcome == reload.Rejected || a.Outcome == reload.Failed }

// judgeTrial takes the outcome of a trial. A failed one is over if there is something to go back to; if not, the applier
// goes on trying the same, and may have success.
func (f *Follower) judgeTrial(ctx context.Context, a reload.Result) {
	if !failed(a) {
		f.use(f.candidate)
		f.candidate, f.trial, f.failing = nil, nil, false
		f.next.reset()
		f.templatesWork()
		return
	}
	f.failing = true
	f.templatesFailed(errors.New(a.Reason))
	if f.good != nil {
		f.trial = nil
		f.next.failed(a.Duration, a.ReloadFailed)
		f.fallBack(ctx)
	}
}

// use makes templates the good ones.
func (f *Follower) use(templates *render.Templates) { f.good, f.earlier = templates, nil }

func (f *Follower) render(t *render.Templates) (*render.Result, error) {
	start := time.Now()
	result, err := t.Render(f.snap)
	f.metrics.duration.Observe(time.Since(start).Seconds())
	if err != nil {
		f.metrics.errors.Inc()
	}
	return result, err
}
