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

// passes counts the passes of each loop.
type passes struct {
	mu sync.Mutex
	n  map[string]int
}

func (p *passes) count(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n == nil {
		p.n = map[string]int{}
	}
	p.n[loop]++
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
			t.Errorf("loop %q made %d passes in %v, want %d at most", loop, n, window, most)
		}
	}
}

func (h *harness) countPasses() *passes {
	p := &passes{}
	h.opts.CountPasses(p.count)
	h.docker.CountPasses(p.count)
	return p
}

func TestNoLoopSpinsWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(*testkit.Etcd){"refuses connections": (*testkit.Etcd).Kill, "stands still": (*testkit.Etcd).Pause} {
		t.Run(name+" at the start", func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			h.opts.Source, _ = fixed(2)
			p := h.countPasses()
			away(h.etcd)
			h.start()
			p.bounded(t)
			h.awaitLog("request to etcd failed")
			p.bounded(t)
		})
		t.Run(name+" later, with nothing to write", func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			source, want := fixed(2)
			h.opts.Source, h.opts.ResyncInterval, h.opts.TTL = source, 100*time.Millisecond, time.Minute
			p := h.countPasses()
			h.start()
			h.expect("start", want)
			h.awaitRunning()
			away(h.etcd)
			h.awaitLog("request to etcd failed")
			p.bounded(t)
		})
		t.Run(name+" later, with something to write", func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			s := make(changing, 1)
			h.opts.Source, h.opts.TTL = s, time.Minute
			p := h.countPasses()
			h.start()
			first, want := fixed(2)
			s <- first
			h.expect("start", want)
			away(h.etcd)
			second, _ := fixed(3)
			s <- second
			h.awaitLog("request to etcd failed")
			p.bounded(t)
		})
	}
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
	for _, call := range []string{"ping", "list", "inspect", "events"} {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s fails, later %t", call, later), func(t *testing.T) {
				t.Parallel()
				api, p, a := &failing{fakeAPI: newFakeAPI(oldWeb("nuncio."))}, &passes{}, &answers{now: advertised}
				o := register.DockerOptions{API: api, Advertise: a.lookup, ResyncInterval: time.Hour}
				o.CountPasses(p.count)
				if !later {
					api.fail(call)
				}
				w := watch(t, o)
				if later {
					w.expect(ready)
					api.fail(call)
					api.breakStream()
				}
				p.bounded(t)
			})
		}
	}
	t.Run("no address is found", func(t *testing.T) {
		t.Parallel()
		p, a := &passes{}, &answers{now: noAddress}
		o := register.DockerOptions{API: newFakeAPI(oldWeb("nuncio.")), Advertise: a.lookup, ResyncInterval: time.Hour}
		o.CountPasses(p.count)
		watch(t, o).expect("[]")
		p.bounded(t)
	})
}

func TestNoLoopOfDrainSpinsWhileEtcdIsAway(t *testing.T) {
	t.Parallel()
	for _, wait := range []time.Duration{0, time.Hour} {
		t.Run(fmt.Sprintf("wait %v", wait), func(t *testing.T) {
			t.Parallel()
			h, _ := fixedHarness(t, 1)
			o := register.DrainOptions{Client: h.store, Node: h.node, Target: "web/i000", Wait: wait}
			p := &passes{}
			o.CountPasses(p.count)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			drain := func() {
				defer close(done)
				_, _ = register.Drain(ctx, o) // the passes are what counts
			}
			if wait == 0 {
				h.etcd.Kill()
				go drain()
			} else {
				go drain()
				h.expect("drained", map[string]entry{"web/i000": {"192.0.2.7:1000", catalog.StateDrain}})
				h.etcd.Kill()
			}
			p.bounded(t)
			cancel()
			<-done
		})
	}
}

func TestWaitingForAnotherRegistrarDoesNotSpin(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, _ := fixed(2)
	h.opts.Source = source
	p := h.countPasses()
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
