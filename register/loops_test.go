package register_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/register"
)

// passes counts the passes of each loop, by case and name.
type passes struct {
	mu sync.Mutex
	n  map[string]int
}

// of returns what counts for one case.
func (p *passes) of(name string) func(loop string) {
	return func(loop string) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.n == nil {
			p.n = map[string]int{}
		}
		p.n[name+": "+loop]++
	}
}

// bounded fails the test if a loop makes more than 20 passes a second. While a peer is away the pause between two
// attempts grows from 50 ms to 3 s.
func (p *passes) bounded(t *testing.T) {
	t.Helper()
	const window, most = 2 * time.Second, 40
	p.mu.Lock()
	p.n = map[string]int{}
	p.mu.Unlock()
	time.Sleep(window) // what is measured
	p.mu.Lock()
	defer p.mu.Unlock()
	for loop, n := range p.n {
		if n > most {
			t.Errorf("%s made %d passes in %v, want %d at most", loop, n, window, most)
		}
	}
}

func (h *harness) countPasses(p *passes, name string) {
	h.opts.CountPasses(p.of(name))
	h.docker.CountPasses(p.of(name))
}

func TestNoLoopSpinsWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	p := &passes{}
	var all []*harness
	var changes []changing
	for name, away := range map[string]func(*testkit.Etcd){"refuses connections": (*testkit.Etcd).Kill, "stands still": (*testkit.Etcd).Pause} {
		start := newHarness(t)
		start.countPasses(p, name+" at the start")
		start.opts.Source, _ = fixed(2)
		away(start.etcd)
		start.start()

		idle := newHarness(t)
		idle.countPasses(p, name+" later, with nothing to write")
		records, want := fixed(2)
		idle.opts.Source = records
		idle.opts.ResyncInterval, idle.opts.TTL = 100*time.Millisecond, time.Minute
		idle.start()
		idle.expect("start", want)

		busy, sets := newHarness(t), make(changing, 1)
		busy.countPasses(p, name+" later, with something to write")
		busy.opts.Source, busy.opts.TTL = sets, time.Minute
		busy.start()
		sets <- records
		busy.expect("start", want)
		away(idle.etcd)
		away(busy.etcd)
		all, changes = append(all, start, idle, busy), append(changes, sets)
	}
	p.bounded(t)
	for _, c := range changes {
		next, _ := fixed(3)
		c <- next
	}
	for _, h := range all {
		h.awaitLog("request to etcd failed")
	}
	p.bounded(t)
}

// changing is a source of the sets that a test sends.
type changing chan register.Fixed

func (c changing) Run(ctx context.Context, publish func(register.Published)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case set := <-c:
			publish(register.Published{Desired: &register.Desired{Records: set}})
		}
	}
}

// failing is a Docker of which single calls fail, once they are named.
type failing struct {
	*fakeAPI
	mu    sync.Mutex
	calls map[string]bool
}

func (f *failing) fail(calls ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = map[string]bool{}
	for _, c := range calls {
		f.calls[c] = true
	}
}

func (f *failing) err(call string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls[call] {
		return errors.New(call + " fails")
	}
	return nil
}

func (f *failing) Ping(context.Context) error { return f.err("ping") }

func (f *failing) List(ctx context.Context) ([]register.Listed, error) {
	if err := f.err("list"); err != nil {
		return nil, err
	}
	return f.fakeAPI.List(ctx)
}

func (f *failing) Inspect(ctx context.Context, id string) (*register.Container, error) {
	if err := f.err("inspect"); err != nil {
		return nil, err
	}
	return f.fakeAPI.Inspect(ctx, id)
}

func (f *failing) Events(ctx context.Context, since time.Time, handle func(register.Event)) error {
	if err := f.err("events"); err != nil {
		return err
	}
	return f.fakeAPI.Events(ctx, since, handle)
}

func TestNoLoopSpinsWhileDockerIsAway(t *testing.T) {
	t.Parallel()
	p := &passes{}
	source := func(name string, api register.API, adv register.Advertise) *sourceRun {
		o := register.DockerOptions{API: api, Advertise: (&addressLookup{now: adv}).lookup, ResyncInterval: time.Hour}
		o.CountPasses(p.of(name))
		return watch(t, o)
	}
	for _, call := range []string{"ping", "list", "inspect", "events"} {
		start, later := &failing{fakeAPI: newFakeAPI(oldWeb("nuncio."))}, &failing{fakeAPI: newFakeAPI(oldWeb("nuncio."))}
		start.fail(call)
		source(call+" fails at the start", start, advertised)
		source(call+" fails later", later, advertised).expect(ready)
		later.fail(call)
		later.breakStream()
	}
	source("no address is found", newFakeAPI(oldWeb("nuncio.")), noAddress).expect("[]")
	p.bounded(t)
}

func TestNoLoopOfDrainSpinsWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	p := &passes{}
	ctx, cancel := context.WithCancel(t.Context())
	var drains sync.WaitGroup
	for _, wait := range []time.Duration{0, time.Hour} {
		h, _ := fixedHarness(t, 1)
		o := register.DrainOptions{Client: h.store, Node: h.node, Target: "web/i000", Wait: wait}
		o.CountPasses(p.of(fmt.Sprintf("drain with --wait=%v", wait)))
		if wait == 0 {
			h.etcd.Kill()
		}
		drains.Go(func() { _, _ = register.Drain(ctx, o) }) // only its passes count here
		if wait > 0 {
			h.expect("drained", map[string]entry{"web/i000": {"192.0.2.7:1000", catalog.StateDrain}})
			h.etcd.Kill()
		}
	}
	p.bounded(t)
	cancel()
	drains.Wait()
}

func TestWaitingForAnotherRegistrarDoesNotSpin(t *testing.T) {
	t.Parallel()
	h, p := newHarness(t), &passes{}
	h.opts.Source, _ = fixed(2)
	h.countPasses(p, "claim")
	lease, err := h.store.Grant(ctx10(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Put(ctx10(t), "/nuncio/registrars/n1", `{"instance":"other"}`, clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	h.start()
	h.awaitLog("waiting to see whether it renews its lease")
	p.bounded(t)
}
