package watch_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// observed is how long a loop is observed, and maxPasses how many passes it may make then. With pauses of 50 ms, 100 ms and
// so on up to 2.4 s, give or take a quarter, they are about seven; without pauses they would be thousands.
const (
	observed  = 6 * time.Second
	maxPasses = 14
	// maxConnections allows for five a second, which is how often package etcd connects to one address.
	maxConnections = 35
)

// passes counts the requests of a Store that failed, its listings and the watches that it opened again.
func passes(r *running) float64 {
	n := float64(r.store.Status().Failures) + r.counter("nuncio_watch_reconnects_total")
	for _, reason := range []string{"start", "compaction", "store_went_back"} {
		n += r.counter("nuncio_watch_relists_total", reason)
	}
	return n
}

// TestLoopsPauseWhileTheStoreIsAway counts the passes and the connections of a Store in each kind of outage, from the start
// and after a good spell.
func TestLoopsPauseWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	for outage, begin := range map[string]func(*proxy){
		"refused": (*proxy).refuse,
		"closed":  func(p *proxy) { p.set(closeAtOnce) },
		"silent":  func(p *proxy) { p.set(neverAnswer) },
		"reset":   func(p *proxy) { p.set(resetShortly) },
	} {
		for _, when := range []string{"from the start", "later"} {
			t.Run(outage+" "+when, func(t *testing.T) {
				t.Parallel()
				p := newProxy(t, server)
				if when == "from the start" {
					begin(p)
				}
				r := run(t, etcd.Config{Endpoints: []string{p.addr}}, watch.StoreOptions{})
				if when == "later" {
					r.expect("web/a 192.0.2.1:80")
					begin(p)
				}
				requests, connections := passes(r), p.accepted.Load()
				time.Sleep(observed)
				made := passes(r) - requests
				if made > maxPasses {
					t.Errorf("%v passes in %v, want at most %d", made, observed, maxPasses)
				}
				if n := p.accepted.Load() - connections; n > maxConnections {
					t.Errorf("%d connections in %v, want at most %d", n, observed, maxConnections)
				}
				if made == 0 && p.accepted.Load() == connections && outage != "refused" && outage != "silent" {
					t.Error("the store was not asked: the test observes nothing")
				}
			})
		}
	}
}

func TestAMissingDirectoryIsPolled(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(dir string){
		"from the start": func(string) {},
		"later":          func(dir string) { must(t, os.MkdirAll(dir, 0o755)) },
		"a link to nothing": func(dir string) {
			must(t, os.Symlink("nothing", dir))
		},
		"a file": func(dir string) { must(t, os.WriteFile(dir, nil, 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "templates")
			prepare(dir)
			d, out := follow(t, watch.DirOptions{Dir: dir, Poll: 100 * time.Millisecond})
			if name == "later" {
				<-out
				must(t, os.Remove(dir))
			}
			testkit.Eventually(t, limit, func() error {
				if d.Reads() == 0 {
					return errors.New("not read yet")
				}
				return nil
			})
			before := d.Reads()
			time.Sleep(2 * time.Second)
			if n := d.Reads() - before; n < 5 || n > 30 {
				t.Errorf("%d reads in 2 s with a poll of 100 ms", n)
			}
		})
	}
}
