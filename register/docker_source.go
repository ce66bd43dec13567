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
	// Advertise finds the address for published ports. It is called at every resync, because addresses change, and has
	// to return when its context ends. The last address that it found stays in use while it finds none.
	Advertise func(context.Context) Advertise
	// ResyncInterval is the pause between complete listings of Docker's containers; 0 means 10 s.
	ResyncInterval time.Duration
	// StopWindow is how long a container that got a stop signal and lives on is kept in drain; 0 means 5 min.
	StopWindow time.Duration
	Log        *slog.Logger
	Metrics    *Metrics

	onPass passHook
}

const (
	defaultResyncInterval = 10 * time.Second
	defaultStopWindow     = 5 * time.Minute
	listTimeout           = 10 * time.Second
	lookupTimeout         = 5 * time.Second // for a name server that does not answer
	inspectTimeout        = 5 * time.Second
	inspectWorkers        = 4
	inspectPause          = time.Second // after an inspection that failed
	// eventBuffer takes bursts. Docker drops events of a reader that keeps it waiting for 100 ms (seen in 20.10).
	eventBuffer = 1024
	// replay is how far back the first subscription reaches, or the stop window if that is longer: it finds the stop
	// signals that were sent while no registrar ran, and covers the gap before Docker's subscription where the clocks
	// of two hosts differ.
	replay = 5 * time.Minute
	// replayTime is how long after a subscription an event may be one that Docker replays: it sends those first.
	replayTime = 10 * time.Second
)

// Docker is the source of records that follows the containers of one Docker engine. Run's goroutine owns its fields.
type Docker struct {
	opts    DockerOptions
	publish func(Published)

	since   time.Time // the next subscription begins here
	address advertisedAddress
	entries map[string]*entry // by id

	// Of the present connection:
	subscribed time.Time
	listed     bool // Docker has listed its containers
	step       int  // counts events, to tell whether an answer is older than one
	inspecting int
	resyncing  bool
	results    chan func() error // each notes what a worker has found
}

// NewDocker returns a source; it does nothing until it runs.
func NewDocker(opts DockerOptions) *Docker {
	opts.ResyncInterval = cmp.Or(opts.ResyncInterval, defaultResyncInterval)
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
	return &Docker{opts: opts, entries: map[string]*entry{}}
}

// Run implements Source. It publishes a set after every change, and an error while Docker does not answer; the
// last set stays in use meanwhile. Call it once.
func (d *Docker) Run(ctx context.Context, publish func(Published)) error {
	d.publish = publish
	d.since = time.Now().Add(-max(replay, d.opts.StopWindow))
	for failures := 0; ctx.Err() == nil; failures++ {
		d.opts.onPass.pass("reconnect")
		err := d.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if d.listed && time.Since(d.subscribed) > longestRetry {
			failures = 0 // a stream of events that ends at once is no recovery
		}
		d.opts.Metrics.dockerUp.Set(0)
		if failures == 0 {
			d.opts.Log.Warn("docker does not answer, records stay as they are", "err", err)
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

// connect follows Docker until the connection breaks.
func (d *Docker) connect(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	for _, e := range d.entries { // only what events alone say stays: this connection asks for those that come after them
		*e = entry{died: e.died, killed: e.killed, until: e.until, logged: e.logged}
	}
	d.results = make(chan func() error)
	d.listed, d.step, d.inspecting, d.resyncing = false, 0, 0, false
	d.subscribed = time.Now()
	if err := d.ping(ctx); err != nil {
		return err
	}
	events, broken := make(chan Event, eventBuffer), make(chan error, 1)
	since := d.since
	workers.Go(func() {
		broken <- d.opts.API.Events(ctx, since, func(e Event) {
			select {
			case events <- e:
			case <-ctx.Done():
			}
		})
	})
	resync := time.NewTimer(0)
	defer resync.Stop()
	for {
		d.opts.onPass.pass("docker")
		select {
		case <-ctx.Done():
			return nil
		case err := <-broken:
			return err
		case e := <-events:
			d.event(e)
			for len(events) > 0 { // a burst leads to one decision
				d.event(<-events)
			}
		case note := <-d.results:
			if err := d.handle(note); err != nil {
				return err
			}
		case <-resync.C:
			d.resync(ctx, &workers)
			resync.Reset(d.address.next(d.opts.ResyncInterval))
		case <-d.wake():
		}
		d.inspect(ctx, &workers)
		d.decide()
	}
}

func (d *Docker) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	return d.opts.API.Ping(ctx)
}

// resync reads everything: the address, because nothing tells about its changes, and the list of containers.
func (d *Docker) resync(ctx context.Context, workers *sync.WaitGroup) {
	if d.resyncing {
		return
	}
	d.resyncing = true
	step := d.step
	workers.Go(func() {
		list, cancel := context.WithTimeout(ctx, listTimeout)
		defer cancel()
		listed, err := d.opts.API.List(list)
		lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		address := d.opts.Advertise(lookup)
		d.deliver(ctx, func() error {
			d.resyncing = false
			d.address.update(address, d.opts.Log)
			if err == nil {
				d.resynced(step, listed)
			}
			return err
		})
	})
}

// inspect starts workers for stale entries, as many as are allowed.
func (d *Docker) inspect(ctx context.Context, workers *sync.WaitGroup) {
	now := time.Now()
	for id, e := range d.entries {
		if d.inspecting >= inspectWorkers {
			return
		}
		if !e.stale || e.asking || now.Before(e.retry) {
			continue
		}
		e.stale, e.asking = false, true
		d.inspecting++
		workers.Go(func() {
			inspect, cancel := context.WithTimeout(ctx, inspectTimeout)
			defer cancel()
			c, err := d.opts.API.Inspect(inspect, id)
			d.deliver(ctx, func() error {
				d.inspected(id, c, err)
				return nil
			})
		})
	}
}

func (d *Docker) deliver(ctx context.Context, note func() error) {
	select {
	case d.results <- note:
	case <-ctx.Done():
	}
}
