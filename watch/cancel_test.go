package watch_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// prompt is how long Run may take to return after its context has ended.
const prompt = 5 * time.Second

// endsPromptly cancels a Run that waits somewhere, and checks that it returns without an error and leaves no goroutine.
func endsPromptly(t *testing.T, run func(context.Context) error, reach func(), after func()) {
	t.Helper()
	existing := goleak.IgnoreCurrent()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	reach()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	case <-time.After(prompt):
		t.Fatalf("Run is still blocked %v after its context ended", prompt)
	}
	after()
	if err := goleak.Find(existing); err != nil {
		t.Error(err)
	}
}

// TestStoreRunEndsWhereverItWaits is not parallel, nor are its cases: goroutines of other tests would be taken for leaks.
func TestStoreRunEndsWhereverItWaits(t *testing.T) {
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	type situation struct {
		p     *proxy
		store *watch.Store
		out   chan *catalog.Snapshot
	}
	eventually := func(reached func() bool) {
		testkit.Eventually(t, limit, func() error {
			if !reached() {
				return errors.New("not there yet")
			}
			return nil
		})
	}
	failures := func(s situation, n int) { eventually(func() bool { return s.store.Status().Failures >= n }) }
	for name, tt := range map[string]struct {
		options watch.StoreOptions
		before  func(*proxy)
		reach   func(situation)
	}{
		"before anything": {reach: func(situation) {}},
		"before the first request": {
			options: watch.StoreOptions{StartJitter: 1000 * time.Hour},
			reach: func(s situation) {
				time.Sleep(200 * time.Millisecond)
				if n := s.p.accepted.Load(); n != 0 {
					t.Errorf("%d connections before the time", n)
				}
			},
		},
		"in the first listing": {
			before: func(p *proxy) { p.set(neverAnswer) },
			reach:  func(s situation) { eventually(func() bool { return s.p.accepted.Load() > 0 }) },
		},
		"after a failed attempt to list": {
			before: (*proxy).refuse,
			reach:  func(s situation) { failures(s, 1) },
		},
		"with a snapshot that nobody receives": {reach: func(s situation) { eventually(func() bool { return s.store.Status().Synced }) }},
		"while the watch is quiet":             {reach: func(s situation) { <-s.out; time.Sleep(100 * time.Millisecond) }},
		"while the watch is being opened": {reach: func(s situation) {
			<-s.out
			s.p.set(neverAnswer)
			time.Sleep(50 * time.Millisecond)
		}},
		"in a request after the watch broke": {reach: func(s situation) {
			<-s.out
			s.p.set(neverAnswer)
			failures(s, 1)
		}},
		"after such a request failed": {reach: func(s situation) {
			<-s.out
			s.p.refuse()
			failures(s, 1)
		}},
		"in a comparison": {
			options: watch.StoreOptions{Compare: 200 * time.Millisecond},
			reach: func(s situation) {
				<-s.out
				server.Pause()
				t.Cleanup(server.Resume)
				time.Sleep(400 * time.Millisecond)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t, server)
			if tt.before != nil {
				tt.before(p)
			}
			client, err := etcd.Dial(etcd.Config{Endpoints: []string{p.addr}}, nil)
			must(t, err)
			defer client.Close()
			tt.options.Client = client
			store, err := watch.NewStore(tt.options)
			must(t, err)
			s := situation{p, store, make(chan *catalog.Snapshot)}
			endsPromptly(t,
				func(ctx context.Context) error { return store.Run(ctx, s.out) },
				func() { tt.reach(s) },
				func() { client.Close(); p.refuse() })
			server.Resume()
		})
	}
}

func TestDirRunEndsWhereverItWaits(t *testing.T) {
	for name, reach := range map[string]func(dir string, d *watch.Dir, out <-chan map[string]string){
		"before anything": func(string, *watch.Dir, <-chan map[string]string) {},
		"with files that nobody receives": func(_ string, d *watch.Dir, _ <-chan map[string]string) {
			testkit.Eventually(t, limit, func() error {
				if d.Reads() == 0 {
					return errors.New("not read yet")
				}
				return nil
			})
		},
		"while nothing changes": func(_ string, _ *watch.Dir, out <-chan map[string]string) { <-out },
		"while the directory settles": func(dir string, _ *watch.Dir, out <-chan map[string]string) {
			<-out
			write(t, dir, map[string]string{"b.tmpl": "b"})
		},
		"while the directory is missing": func(dir string, d *watch.Dir, out <-chan map[string]string) {
			<-out
			must(t, os.RemoveAll(dir))
			d.Refresh()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "templates")
			write(t, dir, map[string]string{"a.tmpl": "a"})
			d := watch.NewDir(watch.DirOptions{Dir: dir})
			out := make(chan map[string]string)
			endsPromptly(t, func(ctx context.Context) error { return d.Run(ctx, out) }, func() { reach(dir, d, out) }, func() {})
		})
	}
}
