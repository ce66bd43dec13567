package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/render"
)

// DefaultKeepTemplateSets is how many template sets are kept on disk.
const DefaultKeepTemplateSets = 20

// ErrStopped is the answer to an order once Run has ended.
var ErrStopped = errors.New("reconcile: stopped")

// Applier is the part of *reload.Manager that a Reconciler needs.
type Applier interface {
	// Apply makes one attempt to get files into HAProxy and returns when HAProxy has confirmed or refused them.
	Apply(ctx context.Context, desired reload.Desired) (reload.Result, error)
	// Outdated receives when HAProxy may no longer run what Apply confirmed.
	Outdated() <-chan struct{}
}

var _ Applier = (*reload.Manager)(nil)

// Options say what a Reconciler works with. Applier is required.
type Options struct {
	Applier Applier
	// Render is given to the templates that Run receives. Its settings are part of each template set.
	Render render.Options
	// ReloadInterval is the least time between two reloads; 0 does not pace them. What needs no reload waits for nothing.
	ReloadInterval time.Duration
	// Outside reads the certificates that configurations name by absolute paths. Nil leaves that to HAProxy.
	Outside Outside
	// ShrinkHold is how long instances that vanish from the store all at once are kept; 0 keeps none.
	ShrinkHold time.Duration
	// StateDir is where template sets, orders and the shrink guard's records are kept; without it there is no rollback,
	// and the first listing of the store is believed. Prefix is that of the records.
	StateDir, Prefix string
	// Select is that of the store: what it has ceased to select since the last run is no loss.
	Select catalog.Selector
	// KeepTemplateSets is how many template sets are kept; 0 means DefaultKeepTemplateSets.
	KeepTemplateSets int
	// Logger and Registerer may be nil.
	Logger     *slog.Logger
	Registerer prometheus.Registerer
}

// Reconciler keeps HAProxy at what is desired. Run's goroutine owns every field but the published status.
type Reconciler struct {
	opts    Options
	metrics *metrics
	orders  chan func(context.Context)
	again   chan struct{} // Retry was called
	ended   chan struct{} // Run has returned

	state    State
	pace     reloadPace
	guard    shrinkGuard
	keys     keyGuard
	ports    portConflicts
	sets     setHistory
	baseline *baseline // nil: not kept

	certificates certificates

	guarded  *catalog.Snapshot // what the shrink guard lets through
	snapshot *catalog.Snapshot // of that, what is rendered: without the records whose port is in use
	changed  bool              // there is something new to apply

	current   *templateSet  // HAProxy has run what it renders; nil until one is known
	candidate *templateSet  // the newest templates, unless they are current or do not parse
	unparsed  bool          // the newest templates do not parse
	edited    bool          // templates have been received
	earlier   *templateSet  // while nothing is current: the last candidate before this one that HAProxy was given
	order     Resumed       // the order in force: what Resume would end
	frozen    *frozenFiles  // in StateFrozen
	confirmed *confirmed    // what Apply confirmed last
	before    haproxy.Files // what the nuncio before this one left in the state directory

	quarantined map[string]bool // keys of the records that only guarded has
	dropped     map[string]bool // lines that have been logged as dropped
	outside     []string        // questions that have been logged

	mu      sync.Mutex
	status  Status
	desired *haproxy.Files
	notify  chan struct{} // closed at the next change of status
}

// confirmed is what HAProxy runs.
type confirmed struct {
	files  haproxy.Files
	result reload.Result
}

// New validates the options and registers the metrics. It starts nothing and touches no file.
func New(opts Options) (*Reconciler, error) {
	if opts.Applier == nil {
		return nil, errors.New("reconcile: no applier")
	}
	if opts.KeepTemplateSets < 0 {
		return nil, fmt.Errorf("keep %d template sets: want at least 1", opts.KeepTemplateSets)
	}
	if opts.ReloadInterval < 0 {
		return nil, fmt.Errorf("a reload interval of %v: want 0, which does not pace reloads, or more", opts.ReloadInterval)
	}
	if opts.KeepTemplateSets == 0 {
		opts.KeepTemplateSets = DefaultKeepTemplateSets
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Reconciler{
		opts: opts, metrics: newMetrics(opts.Registerer), orders: make(chan func(context.Context)), again: make(chan struct{}, 1),
		ended: make(chan struct{}), notify: make(chan struct{}), state: StateWaiting,
		status: Status{State: StateWaiting, Since: time.Now(), TrustValues: opts.Render.TrustValues},
		pace:   reloadPace{interval: opts.ReloadInterval},
		guard:  shrinkGuard{holdTimes: holdTimes{hold: opts.ShrinkHold}}, keys: keyGuard{holdTimes: holdTimes{hold: opts.ShrinkHold}}, ports: portConflicts{},
		sets: setHistory{dir: opts.StateDir, keep: opts.KeepTemplateSets}, baseline: newBaseline(opts),
		certificates: newCertificates(opts),
		quarantined:  map[string]bool{}, dropped: map[string]bool{},
	}
	if opts.Render.TrustValues {
		r.metrics.trust.Set(1)
		opts.Logger.Warn("values from the store are trusted: whoever writes to it writes HAProxy's configuration", "flag", "--trust-values", "list", "nuncio check --untrusted")
	}
	return r, nil
}

// Retry makes the Reconciler try everything once more, soon, and forget its pauses: for an operator's HUP.
func (r *Reconciler) Retry() {
	select {
	case r.again <- struct{}{}:
	default: // one is due already
	}
}

// Run follows both channels until ctx ends, and then returns nil. A tree is a set of template texts by path. Call it once.
func (r *Reconciler) Run(ctx context.Context, snapshots <-chan *catalog.Snapshot, trees <-chan map[string]string) error {
	defer close(r.ended)
	defer r.leaveTemplateSet()
	var background sync.WaitGroup
	defer background.Wait()
	if r.baseline != nil {
		r.guard.resume(r.baseline.load(time.Now()))
		background.Go(func() { r.baseline.run(ctx) })
	}
	if r.opts.StateDir != "" {
		r.before, _ = reload.Current(r.opts.StateDir) // none at the very first start
	}
	r.restore()
	r.certificates.good = r.before
	var renewed <-chan struct{}
	if r.opts.Outside != nil {
		renewed = r.opts.Outside.Changed()
	}
	for {
		r.pass(ctx)
		if ctx.Err() != nil { // select picks at random among ready channels
			return nil
		}
		var alarm <-chan time.Time
		if due := r.due(); !due.IsZero() {
			alarm = time.After(time.Until(due))
		}
		select {
		case <-ctx.Done():
		case snapshot := <-snapshots:
			if what := r.keys.take(time.Now(), snapshot); what != guardNone || r.keys.holding() {
				r.takeKeys(what, snapshot.Watched)
			}
			r.take(r.guard.take(time.Now(), snapshot))
		case tree := <-trees:
			r.edit(tree)
		case order := <-r.orders:
			order(ctx)
		case <-renewed:
			r.changed = true
		case <-r.again:
			r.restart()
		case <-r.opts.Applier.Outdated():
			r.outdated()
		case <-alarm:
		}
	}
}

// due is the earliest time at which something is planned; zero if nothing is.
func (r *Reconciler) due() (next time.Time) {
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	earliest(r.guard.deadline())
	earliest(r.keys.deadline())
	earliest(r.ports.deadline())
	for _, planned := range r.attempted() {
		earliest(planned.due)
	}
	return next
}

// attempted lists the retries of everything that may be attempted in this state.
func (r *Reconciler) attempted() (all []*retry) {
	switch {
	case r.state == StateFrozen:
		return []*retry{&r.frozen.retry}
	case r.snapshot == nil || !r.edited && r.state != StateRolledBack:
		return nil
	}
	if r.candidate != nil && r.state != StateRolledBack {
		all = append(all, &r.candidate.retry)
	}
	if serving := r.serving(); serving != nil {
		all = append(all, &serving.retry)
	}
	return all
}

// edit makes a tree the candidate. A tree that does not parse leaves what is in use, and also ends an older candidate: the
// operator has moved on from it. Only while nothing is in use an older one is still desired.
func (r *Reconciler) edit(tree map[string]string) {
	if r.current == nil && r.candidate != nil && (r.earlier == nil || r.candidate.tried) {
		r.earlier = r.candidate
	}
	r.candidate, r.unparsed, r.edited = nil, false, true
	r.restartSets()
	set, err := newTemplateSet(tree, r.opts.Render)
	switch {
	case err != nil:
		r.unparsed = true
		r.templatesFailed(err)
	case r.current != nil && set.digest == r.current.digest:
		r.templatesInUse()
	default:
		r.candidate = set
	}
}

// restart tries everything once more, without the pauses of before.
func (r *Reconciler) restart() {
	if r.frozen != nil {
		r.frozen.retry = retry{due: time.Now()}
	}
	r.restartSets()
}

func (r *Reconciler) restartSets() {
	r.changed = true
	for _, set := range []*templateSet{r.current, r.candidate, r.earlier} {
		if set != nil {
			set.retry, set.attempted = retry{due: time.Now()}, false
		}
	}
	if clear(r.ports); r.guarded != nil {
		r.filterPorts()
	}
}

// outdated plans another attempt: HAProxy may no longer run what was confirmed.
func (r *Reconciler) outdated() {
	for _, planned := range r.attempted() {
		planned.outdated(time.Now())
	}
}
