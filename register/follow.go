package register

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
)

// DockerOptions configures a Docker source.
type DockerOptions struct {
	API   API
	Rules Rules
	// Advertise finds the address for published ports; it is asked at every sweep, because addresses change, and
	// has to end with its context. The last address that it found stays in force while it finds none.
	Advertise func(context.Context) Advertise
	// Sweep is the pause between complete looks at Docker; 0 means 30 s.
	Sweep time.Duration
	// StopWindow is how long a container that got a stop signal and lives on is kept in drain; 0 means 5 min.
	StopWindow time.Duration
	Log        *slog.Logger
	Metrics    *Metrics

	onPass passHook
}

const (
	defaultSweep      = 30 * time.Second
	defaultStopWindow = 5 * time.Minute
	listTimeout       = 10 * time.Second
	inspectTimeout    = 5 * time.Second
	inspectWorkers    = 4
	// replay is how far back the first subscription reaches, or the stop window if that is longer: it finds the stop
	// signals that were sent while no registrar ran, and covers the gap before Docker's subscription where the clocks
	// of two hosts differ.
	replay = 5 * time.Minute
	// replayTime is how long after a subscription an event may be one that Docker replays: it sends those first.
	replayTime = 10 * time.Second
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
		opts.Advertise = func(context.Context) Advertise { return Advertise{Reason: "no advertise address is configured"} }
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
	m := &memory{since: time.Now().Add(-max(replay, d.opts.StopWindow)), said: map[string]string{}, marked: map[string]*entry{}}
	for failures := 0; ctx.Err() == nil; failures++ {
		d.opts.onPass.pass("reconnect")
		f := &follower{
			Docker: d, memory: m, publish: publish, entries: m.marked, results: make(chan result),
		}
		err := f.run(ctx)
		m.marked = marks(f.entries)
		if ctx.Err() != nil {
			return nil
		}
		if f.answered && time.Since(f.subscribed) > longestRetry {
			failures = 0 // a stream of events that ends at once is no recovery
		}
		d.opts.Metrics.dockerUp.Set(0)
		if failures == 0 {
			d.log.Warn("docker does not answer, records stay as they are", "err", err)
		}
		publish(Published{Err: err})
		pause(ctx, retryDelay(failures))
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// memory is what outlives a connection to Docker.
type memory struct {
	since   time.Time         // the next subscription begins here
	said    map[string]string // the last logged reason of each container
	address standing
	marked  map[string]*entry // what events alone tell; Docker does not tell it again
}

// follower is one connection to Docker: one goroutine owns all its fields.
type follower struct {
	*Docker
	*memory
	publish    func(Published)
	answered   bool
	subscribed time.Time

	entries map[string]*entry
	step    int // counts events, to tell whether an answer is older than one
	busy    int // inspections under way
	listing bool
	looking bool
	results chan result
	memo    memo
}

// result is what a worker found: the answer to an inspection, to a list, or to the question for the address.
type result struct {
	id     string
	step   int
	facts  *Container
	listed []Listed
	list   bool
	found  *Advertise
	err    error
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
	f.subscribed = time.Now()
	wg.Go(func() { broken <- f.opts.API.Events(ctx, f.since, q.put) })

	sweep := time.NewTicker(f.opts.Sweep)
	defer sweep.Stop()
	f.lookup(ctx, &wg)
	f.list(ctx, &wg)
	for {
		f.opts.onPass.pass("docker")
		f.inspect(ctx, &wg)
		if f.address.failures > 0 && !time.Now().Before(f.address.due) {
			f.lookup(ctx, &wg)
		}
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
			f.lookup(ctx, &wg)
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
