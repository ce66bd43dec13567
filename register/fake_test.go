package register_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/register"
)

// fakeAPI is a Docker whose events and troubles a test decides. It has one container until gone is called.
type fakeAPI struct {
	mu         sync.Mutex
	container  *register.Container
	life       chan struct{} // closed to break the stream of events
	handle     func(register.Event)
	subscribed []time.Time // the "since" of every subscription
	replayed   []register.Event
}

var _ register.API = (*fakeAPI)(nil)

func newFakeAPI(c *register.Container) *fakeAPI { return &fakeAPI{container: c} }

func (f *fakeAPI) Ping(context.Context) error { return nil }

func (f *fakeAPI) List(context.Context) ([]register.Listed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []register.Listed{{ID: f.container.ID, Digest: f.container.StartedAt.String()}}, nil
}

func (f *fakeAPI) Inspect(context.Context, string) (*register.Container, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.container, nil
}

// Events replays what Docker would replay, and then waits for the test.
func (f *fakeAPI) Events(ctx context.Context, since time.Time, handle func(register.Event)) error {
	f.mu.Lock()
	life := make(chan struct{})
	f.life, f.handle = life, handle
	f.subscribed = append(f.subscribed, since)
	for _, ev := range f.replayed {
		if !ev.Time.Before(since) {
			handle(ev)
		}
	}
	f.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-life:
		return errors.New("the stream has ended")
	}
}

// emit sends an event to the registrar, which has to be subscribed.
func (f *fakeAPI) emit(t *testing.T, action string, signal int, at time.Time) {
	t.Helper()
	f.subscriptions(t, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	ev := register.Event{ID: f.container.ID, Action: action, Signal: signal, Time: at}
	f.replayed = append(f.replayed, ev)
	f.handle(ev)
}

func (f *fakeAPI) breakStream() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.life)
}

// subscriptions waits for the n-th subscription.
func (f *fakeAPI) subscriptions(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, within, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if len(f.subscribed) < n {
			return fmt.Errorf("%d subscriptions, want %d", len(f.subscribed), n)
		}
		return nil
	})
}

// restart gives the container another start and another port.
func (f *fakeAPI) restart(port int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := *f.container
	c.StartedAt = time.Now()
	c.Ports = map[register.Port][]register.Binding{{Number: 80, Proto: "tcp"}: {{IP: netip.IPv4Unspecified(), Port: port}}}
	f.container = &c
}

// oldWeb is a container of service web that has run for an hour.
func oldWeb(prefix string) *register.Container {
	c := facts("web1", label(prefix+"service", "web"), "80=0.0.0.0:32768")
	c.StartedAt = time.Now().Add(-time.Hour)
	return c
}

// addressLookup finds the address that a test sets while the registrar runs.
type addressLookup struct {
	mu    sync.Mutex
	now   register.Advertise
	hang  chan struct{} // until it is closed, there is no answer
	asked int
}

func (a *addressLookup) set(now register.Advertise, hang chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now, a.hang, a.asked = now, hang, 0
}

func (a *addressLookup) lookup(context.Context) register.Advertise {
	a.mu.Lock()
	a.asked++
	now, hang := a.now, a.hang
	a.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return now
}

// awaitAsked waits until the lookup was asked n times since the last set.
func (a *addressLookup) awaitAsked(t *testing.T, n int) {
	t.Helper()
	testkit.Eventually(t, within, func() error {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.asked < n {
			return fmt.Errorf("asked %d times, want %d", a.asked, n)
		}
		return nil
	})
}

var noAddress = register.Advertise{Reason: "lookup etcd.test: no such host"}

// sourceRun runs a Docker source by itself and keeps everything that it published.
type sourceRun struct {
	t         *testing.T
	log       *recorder
	mu        sync.Mutex
	published []register.Published
	stop      func()
}

func watch(t *testing.T, o register.DockerOptions) *sourceRun {
	t.Helper()
	w := &sourceRun{t: t, log: &recorder{}}
	o.Rules = register.Rules{Node: "n1"}
	o.Log = slog.New(slog.NewTextHandler(w.log, nil))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = register.NewDocker(o).Run(ctx, func(p register.Published) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.published = append(w.published, p)
		})
	}()
	w.stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(w.stop)
	return w
}

// sets are the published sets in short, such as "web/n1:web1 192.0.2.10:32768 drain", without repetitions.
func (w *sourceRun) sets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []string
	for _, p := range w.published {
		if p.Desired == nil || len(p.Desired.Unknown) > 0 {
			continue
		}
		records, _ := brief(*p.Desired)
		if now := fmt.Sprint(records); len(all) == 0 || all[len(all)-1] != now {
			all = append(all, now)
		}
	}
	return all
}

// expect waits for exactly these sets, one after the other.
func (w *sourceRun) expect(want ...string) {
	w.t.Helper()
	testkit.Eventually(w.t, within, func() error {
		if got := w.sets(); fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("published %q, want %q\n%s", got, want, w.log)
		}
		return nil
	})
}

// advertises waits until the address that people are shown passes the check.
func (w *sourceRun) advertises(check func(string) bool) {
	w.t.Helper()
	testkit.Eventually(w.t, within, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.published) == 0 || !check(w.published[len(w.published)-1].Advertise) {
			return fmt.Errorf("published %+v\n%s", w.published, w.log)
		}
		return nil
	})
}

// settled waits until a number of sets were published on the n-th connection, so that what it knows has been decided.
func (w *sourceRun) settled(connection int) {
	w.t.Helper()
	testkit.Eventually(w.t, within, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		breaks, sets := 0, 0
		for _, p := range w.published {
			switch {
			case p.Err != nil:
				breaks++
			case breaks == connection-1 && len(p.Desired.Unknown) == 0:
				sets++
			}
		}
		if breaks < connection-1 || sets < 10 {
			return fmt.Errorf("%d breaks and %d sets behind them\n%s", breaks, sets, w.log)
		}
		return nil
	})
}

// lastIs fails the test unless the newest set is this one.
func (w *sourceRun) lastIs(want string) {
	w.t.Helper()
	if got := w.sets(); len(got) == 0 || got[len(got)-1] != want {
		w.t.Errorf("published %q, want the last one to be %q\n%s", got, want, w.log)
	}
}
