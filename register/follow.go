package register

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

// DockerOptions configures a Docker source.
type DockerOptions struct {
	API   API
	Rules Rules
	// Advertise finds the address for published ports; it is asked at every sweep, because addresses change.
	Advertise func() Advertise
	// Sweep is the pause between complete looks at Docker; 0 means 30 s.
	Sweep time.Duration
	// StopWindow is how long a container that got a stop signal and lives on is kept in drain; 0 means 5 min.
	StopWindow time.Duration
	Log        *slog.Logger
	Metrics    *Metrics
}

const (
	defaultSweep      = 30 * time.Second
	defaultStopWindow = 5 * time.Minute
	listTimeout       = 10 * time.Second
	inspectTimeout    = 5 * time.Second
	inspectWorkers    = 4
	dockerRetry       = 3 * time.Second
	// replay is how far back the first subscription reaches: it finds the stop signals that were sent while no
	// registrar ran, and covers the gap before Docker's subscription where the clocks of two hosts differ.
	replay = 5 * time.Minute
)

// Docker is the source of records that follows the containers of one Docker engine.
type Docker struct {
	opts DockerOptions
	log  *slog.Logger
}

// NewDocker returns a source; it does nothing until it runs.
func NewDocker(opts DockerOptions) *Docker {
	opts.Sweep = cmp.Or(opts.Sweep, defaultSweep)
	opts.StopWindow = cmp.Or(opts.StopWindow, defaultStopWindow)
	if opts.Advertise == nil {
		opts.Advertise = func() Advertise { return Advertise{Reason: "no advertise address is configured"} }
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Metrics == nil {
		opts.Metrics = NewMetrics(nil)
	}
	return &Docker{opts, opts.Log}
}

// Run implements Source. It publishes a set after every change, and an error while Docker does not answer; the
// last set stays in force meanwhile.
func (d *Docker) Run(ctx context.Context, publish func(Published)) error {
	since := time.Now().Add(-replay)
	said := map[string]string{} // the last logged reason of each container, over reconnections
	for failures := 0; ctx.Err() == nil; failures++ {
		f := &follower{
			Docker: d, publish: publish, since: since, said: said,
			entries: map[string]*entry{}, results: make(chan result), advertise: d.opts.Advertise(),
		}
		err := f.run(ctx)
		since = f.since
		if ctx.Err() != nil {
			return nil
		}
		if f.answered {
			failures = 0
		}
		d.opts.Metrics.dockerUp.Set(0)
		if failures == 0 {
			d.log.Warn("docker does not answer, records stay as they are", "err", err)
		}
		publish(Published{Err: err})
		pause(ctx, retryDelay(failures, dockerRetry))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// follower is one connection to Docker: one goroutine owns all its fields.
type follower struct {
	*Docker
	publish   func(Published)
	since     time.Time
	said      map[string]string
	answered  bool
	advertise Advertise

	entries map[string]*entry
	step    int // counts events, to tell whether an answer is older than one
	busy    int // inspections under way
	listing bool
	results chan result
	memo    memo
}

// entry is what is known about one container.
type entry struct {
	digest  string
	facts   *Container // nil until the first inspection
	stale   bool       // the facts may be out of date
	asking  bool
	changed int       // the step of its last event
	died    time.Time // of its last die event, by Docker's clock
	killed  Event     // its last kill event
	until   time.Time // how long that one may hold it in drain
	retry   time.Time // not inspected again before
}

// result is what a worker found: the answer to an inspection or to a list.
type result struct {
	id     string
	step   int
	facts  *Container
	listed []Listed
	list   bool
	err    error
}

// queue hands events from the reader, which must never wait or Docker drops events, to the loop.
type queue struct {
	mu     sync.Mutex
	events []Event
	more   chan struct{}
}

func (q *queue) put(e Event) {
	q.mu.Lock()
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.more <- struct{}{}:
	default:
	}
}

func (q *queue) take() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.events
	q.events = nil
	return taken
}

func (f *follower) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	pingCtx, done := context.WithTimeout(ctx, listTimeout)
	err := f.opts.API.Ping(pingCtx)
	done()
	if err != nil {
		return err
	}
	q := &queue{more: make(chan struct{}, 1)}
	broken := make(chan error, 1)
	wg.Go(func() { broken <- f.opts.API.Events(ctx, f.since, q.put) })

	sweep := time.NewTicker(f.opts.Sweep)
	defer sweep.Stop()
	f.list(ctx, &wg)
	for {
		f.inspect(ctx, &wg)
		wake := f.wake()
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err
		case <-q.more:
			for _, e := range q.take() {
				f.event(e)
			}
		case r := <-f.results:
			if err := f.take(r); err != nil {
				return err
			}
		case <-sweep.C:
			f.advertise = f.opts.Advertise()
			f.list(ctx, &wg)
		case <-wake:
		}
		f.decide()
	}
}

// take handles a result and those that wait behind it, so that the start of many containers leads to few decisions.
func (f *follower) take(r result) error {
	for {
		if err := f.result(r); err != nil {
			return err
		}
		select {
		case r = <-f.results:
		default:
			return nil
		}
	}
}

// list asks for all containers; the answer comes as a result.
func (f *follower) list(ctx context.Context, wg *sync.WaitGroup) {
	if f.listing {
		return
	}
	f.listing = true
	step := f.step
	wg.Go(func() {
		listCtx, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		listed, err := f.opts.API.List(listCtx)
		f.deliver(ctx, result{list: true, step: step, listed: listed, err: err})
	})
}

// inspect starts workers for stale entries, as many as are allowed.
func (f *follower) inspect(ctx context.Context, wg *sync.WaitGroup) {
	now := time.Now()
	for id, e := range f.entries {
		if f.busy >= inspectWorkers {
			return
		}
		if !e.stale || e.asking || now.Before(e.retry) {
			continue
		}
		e.stale, e.asking = false, true
		f.busy++
		wg.Go(func() {
			c, err := f.inspectOne(ctx, id)
			f.deliver(ctx, result{id: id, facts: c, err: err})
		})
	}
}

func (f *follower) inspectOne(ctx context.Context, id string) (*Container, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
	defer cancel()
	return f.opts.API.Inspect(ctx, id)
}

func (f *follower) deliver(ctx context.Context, r result) {
	select {
	case f.results <- r:
	case <-ctx.Done():
	}
}

// event notes what one event means. Only die and kill say all there is to know; everything else makes the
// facts stale.
func (f *follower) event(ev Event) {
	f.opts.Metrics.events.WithLabelValues(actionLabel(ev.Action)).Inc()
	f.step++
	if ev.Time.After(f.since) {
		f.since = ev.Time.Add(1) // Docker's "since" is inclusive
	}
	e := f.entries[ev.ID]
	if e == nil {
		e = &entry{}
		f.entries[ev.ID] = e
	}
	e.changed, e.stale, e.retry = f.step, true, time.Time{}
	switch ev.Action {
	case "die":
		e.died = ev.Time
	case "kill":
		e.killed = ev
		// Counted from its arrival: Docker's clock and this one need not agree.
		e.until = time.Now().Add(f.opts.StopWindow)
	}
}

func (f *follower) result(r result) error {
	if r.list {
		f.listing = false
		if r.err != nil {
			return r.err
		}
		f.listed(r)
		return nil
	}
	f.busy--
	e := f.entries[r.id]
	if e == nil {
		return nil
	}
	e.asking = false
	switch {
	case e.stale: // an event came meanwhile: the answer may be older than it
	case errors.Is(r.err, errGone):
		delete(f.entries, r.id)
	case r.err != nil:
		e.stale, e.retry = true, time.Now().Add(time.Second)
		f.opts.Metrics.inspectErrors.Inc()
		f.say(r.id, "inspect", r.err.Error(), Skipped{Container: f.name(r.id), ContainerID: r.id[:min(12, len(r.id))], Reason: r.err.Error()})
	case r.facts.Status == "running" || r.facts.Status == "paused" || r.facts.Status == "restarting":
		e.facts = r.facts
	default:
		delete(f.entries, r.id)
	}
	return nil
}

// listed compares a complete list with what is known.
func (f *follower) listed(r result) {
	f.opts.Metrics.sweeps.Inc()
	f.opts.Metrics.dockerUp.Set(1)
	if !f.answered {
		f.answered = true
		f.log.Info("following docker", "containers", len(r.listed))
	}
	seen := map[string]bool{}
	for _, l := range r.listed {
		seen[l.ID] = true
		e := f.entries[l.ID]
		if e == nil {
			e = &entry{changed: r.step}
			f.entries[l.ID] = e
		}
		if e.digest != l.Digest {
			e.digest, e.stale = l.Digest, true
		}
	}
	for id, e := range f.entries {
		if !seen[id] && e.changed <= r.step { // else it may be younger than the list
			delete(f.entries, id)
		}
	}
}

// wake returns a channel that fires when time alone changes something: an inspection may be tried again, or
// a container outlives its stop signal.
func (f *follower) wake() <-chan time.Time {
	var next time.Time
	now := time.Now()
	for _, e := range f.entries {
		for _, t := range []time.Time{e.retry, e.until} {
			if t.After(now) && (next.IsZero() || t.Before(next)) {
				next = t
			}
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next) + time.Millisecond)
}

// decide publishes the set that the present facts lead to.
func (f *follower) decide() {
	if !f.answered {
		return // before the first list, absence means nothing
	}
	now := time.Now()
	var containers []*Container
	unknown := map[string]bool{}
	for id, e := range f.entries {
		switch {
		case e.facts == nil:
			// Even after a die event: one that was replayed may be about an earlier life of the container.
			unknown[id] = true
		case !e.died.IsZero() && !e.died.Before(e.facts.StartedAt):
			// Dead, whatever an inspection under way will say.
		default:
			stopping := e.killed.Time.After(e.facts.StartedAt) && now.Before(e.until) &&
				endsContainer(syscall.Signal(e.killed.Signal), e.facts.StopSignal)
			if stopping != e.facts.Stopping {
				changed := *e.facts // published facts are not changed
				changed.Stopping = stopping
				e.facts = &changed
			}
			containers = append(containers, e.facts)
		}
	}
	desired := f.opts.Rules.decideAll(containers, f.advertise, &f.memo)
	desired.Unknown = unknown
	f.explain(containers, desired)
	f.publish(Published{Desired: &desired, Advertise: describe(f.advertise)})
}

func describe(a Advertise) string {
	if !a.IP.IsValid() {
		return "none: " + a.Reason
	}
	return fmt.Sprintf("%s (%s)", a.IP, a.Origin)
}
