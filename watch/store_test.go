package watch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// limit is generous: it is reached only when something never happens.
const limit = 60 * time.Second

// running is a Store under test and what it delivered last.
type running struct {
	t     *testing.T
	store *watch.Store
	log   *lines
	reg   *prometheus.Registry
	out   chan *catalog.Snapshot
	last  *catalog.Snapshot
	count int
}

func run(t *testing.T, config etcd.Config, o watch.StoreOptions) *running {
	t.Helper()
	client, err := etcd.Dial(config, nil)
	must(t, err)
	return runWith(t, client, o)
}

func runWith(t *testing.T, client *clientv3.Client, o watch.StoreOptions) *running {
	t.Helper()
	r := &running{t: t, log: &lines{}, reg: prometheus.NewRegistry(), out: make(chan *catalog.Snapshot)}
	o.Client, o.Logger, o.Registerer = client, slog.New(r.log), r.reg
	var err error
	r.store, err = watch.NewStore(o)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.store.Run(ctx, r.out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		client.Close()
	})
	return r
}

func at(server *testkit.Etcd) etcd.Config { return etcd.Config{Endpoints: []string{server.Endpoint}} }

// content is what a test compares: "service/instance addr" and "key=value" of the extra pairs.
func content(s *catalog.Snapshot) []string {
	all := []string{}
	for _, svc := range s.Services {
		for _, i := range svc.Instances {
			all = append(all, svc.Name+"/"+i.Name+" "+i.Addr())
		}
	}
	for _, p := range s.Extra {
		all = append(all, p.Key+"="+p.Value)
	}
	return all
}

// expect waits until the given content is delivered, whatever comes before it.
func (r *running) expect(want ...string) *catalog.Snapshot {
	r.t.Helper()
	deadline := time.After(limit)
	for {
		select {
		case r.last = <-r.out:
			r.count++
			if slices.Equal(content(r.last), append([]string{}, want...)) {
				return r.last
			}
		case <-deadline:
			var got []string
			if r.last != nil {
				got = content(r.last)
			}
			r.t.Fatalf("not delivered; status %+v\nlog:\n%s\n(-want +got):\n%s", r.store.Status(), r.log.String(), cmp.Diff(want, got))
		}
	}
}

func (r *running) eventually(check func() error) {
	r.t.Helper()
	testkit.Eventually(r.t, limit, check)
}

func (r *running) logged(part string, times int) {
	r.t.Helper()
	r.eventually(func() error { return r.log.has(part, times) })
}

func (r *running) counter(name string, labels ...string) float64 {
	r.t.Helper()
	families, err := r.reg.Gather()
	must(r.t, err)
	for _, f := range families {
		for _, m := range f.Metric {
			if f.GetName() != name || len(labels) > 0 && m.Label[0].GetValue() != labels[0] {
				continue
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

func TestStoreDeliversTheListingAndThenEveryChange(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	server.Put("/services-old/web/z", "192.0.2.9:80")
	server.Put("/config/color", "blue")
	r := run(t, at(server), watch.StoreOptions{Prefix: "/services", Keys: []string{"/config", "/config/more"}})
	first := r.expect("web/a 192.0.2.1:80", "/config/color=blue")

	server.Put("/services/db/a", "192.0.2.2:5432")
	second := r.expect("db/a 192.0.2.2:5432", "web/a 192.0.2.1:80", "/config/color=blue")
	if first.Service("web") != second.Service("web") {
		t.Error("a service that did not change lost its pointer")
	}
	server.Put("/config/color", "green")
	r.expect("db/a 192.0.2.2:5432", "web/a 192.0.2.1:80", "/config/color=green")

	// Neither a neighbour of the prefix nor equal content is news.
	count := r.count
	server.Put("/services-old/web/y", "192.0.2.9:80")
	server.Put("/services/web/a", "192.0.2.1:80")
	server.Put("/services/web/b", "nonsense\n")
	r.expect("db/a 192.0.2.2:5432", "web/a 192.0.2.1:80", "/config/color=green")
	if r.count != count+1 {
		t.Errorf("%d deliveries for one change of content", r.count-count)
	}
	r.logged("record quarantined key=/services/web/b", 1)
	if got := r.counter("nuncio_quarantined_records"); got != 1 {
		t.Errorf("nuncio_quarantined_records is %v, want 1", got)
	}
	events, before := r.counter("nuncio_watch_events_total"), r.store.Status().LastSync
	server.Put("/services/web/b", "nonsense\n")
	r.eventually(func() error {
		select {
		case s := <-r.out:
			t.Fatalf("equal content was delivered: %v", content(s))
		default:
		}
		if r.counter("nuncio_watch_events_total") == events || !r.store.Status().LastSync.After(before.Add(time.Second)) {
			return errors.New("the event is not there yet")
		}
		return nil
	})
	client := server.Client()
	if _, err := client.Delete(t.Context(), "/services/web/a"); err != nil {
		t.Fatal(err)
	}
	r.expect("db/a 192.0.2.2:5432", "/config/color=green")
	revision := server.Put("/services/web/b", "192.0.2.3:80")
	last := r.expect("db/a 192.0.2.2:5432", "web/b 192.0.2.3:80", "/config/color=green")
	r.logged("record left quarantine key=/services/web/b", 1)
	if last.Revision != revision {
		t.Errorf("snapshot has revision %d, want %d", last.Revision, revision)
	}
	r.eventually(func() error {
		if s := r.store.Status(); !s.Synced || s.Revision < revision || s.ClusterID == 0 || s.Err != "" || time.Since(s.LastSync) > time.Minute {
			return fmt.Errorf("status is %+v", s)
		}
		return nil
	})
	// LastSync moves without any change, by the answers to progress requests.
	before = r.store.Status().LastSync
	r.eventually(func() error {
		if !r.store.Status().LastSync.After(before) {
			return errors.New("LastSync stands still while the store is quiet")
		}
		return nil
	})
	for name, want := range map[string]float64{"nuncio_services": 2, "nuncio_instances": 2, "nuncio_quarantined_records": 0, "nuncio_watch_revision": float64(revision), "nuncio_watch_relists_total": 1} {
		if got := r.counter(name); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	if problems, err := testutil.GatherAndLint(r.reg); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

// TestASingleKeyIsWatched: with what is below it, and without its neighbours.
func TestASingleKeyIsWatched(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/one", "1")
	server.Put("/ones", "2")
	r := run(t, at(server), watch.StoreOptions{Keys: []string{"/one"}})
	r.expect("/one=1")
	server.Put("/one/below", "3")
	r.expect("/one=1", "/one/below=3")
	server.Put("/ones", "4")
	server.Put("/one", "5")
	r.expect("/one=5", "/one/below=3")
}

// TestAQuietStoreIsNotTakenForADeadOne has a store to which nothing is written. It leaves some progress requests
// unanswered by design.
func TestAQuietStoreIsNotTakenForADeadOne(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	r := run(t, at(server), watch.StoreOptions{})
	r.expect()
	for range 3 {
		before := r.store.Status().LastSync
		r.eventually(func() error {
			if !r.store.Status().LastSync.After(before) {
				return errors.New("LastSync stands still")
			}
			return nil
		})
	}
	if n := r.counter("nuncio_watch_reconnects_total"); n != 0 {
		t.Errorf("the watch of a quiet store was opened again %v times", n)
	}
}

func TestABurstIsFewSnapshotsAndLosesNothing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	r := run(t, at(server), watch.StoreOptions{})
	r.expect()
	client := server.Client()
	var want []string
	for i := range 300 {
		if _, err := client.Put(t.Context(), fmt.Sprintf("/services/web/i%03d", i), fmt.Sprintf("192.0.2.1:%d", 1000+i)); err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("web/i%03d 192.0.2.1:%d", i, 1000+i))
	}
	// The reader was busy the whole time: what waits for it is all that had come by then.
	r.expect(want...)
	if r.count > 4 {
		t.Errorf("%d deliveries to a reader that looked once", r.count)
	}
	if got := r.counter("nuncio_watch_events_total"); got != 300 {
		t.Errorf("nuncio_watch_events_total is %v, want 300", got)
	}
}

func TestTheStoreMayStartLaterAndRestart(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	server.Kill()
	r := run(t, at(server), watch.StoreOptions{})
	r.logged("store does not answer", 1)
	if s := r.store.Status(); s.Synced || s.Err == "" || !strings.Contains(s.Hint, "nothing listens") {
		t.Errorf("status while etcd never was there: %+v", s)
	}
	server.Start()
	r.expect("web/a 192.0.2.1:80")
	r.logged("store answers again", 1)

	server.Kill()
	r.logged("store does not answer", 2)
	if s := r.store.Status(); !s.Synced || s.Err == "" {
		t.Errorf("status while etcd is away: %+v", s)
	}
	server.Start()
	server.Put("/services/web/b", "192.0.2.2:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80")
	r.logged("store answers again", 2)
	if err := r.log.has("store does not answer", 2); err != nil {
		t.Errorf("an outage is logged more than once: %v", err)
	}
	if s := r.store.Status(); s.Err != "" {
		t.Errorf("status after the outage: %+v", s)
	}
}

func TestAWipedStoreIsNoticed(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	r := run(t, at(server), watch.StoreOptions{Compare: time.Hour})
	for i := range 5 {
		server.Put("/services/web/a", fmt.Sprintf("192.0.2.1:%d", 80+i))
	}
	r.expect("web/a 192.0.2.1:84")
	server.Kill()
	server.Wipe()
	server.Start()
	r.expect()
	r.logged("store went back in time", 1)
	server.Put("/services/web/b", "192.0.2.2:80")
	r.expect("web/b 192.0.2.2:80")
	if got := r.counter("nuncio_watch_relists_total", "store_went_back"); got != 1 {
		t.Errorf("listings because the store went back: %v, want 1", got)
	}
}

func TestARestoredStoreIsNoticed(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	server.Stop()
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, os.CopyFS(backup, os.DirFS(server.Dir)))
	server.Start()
	r := run(t, at(server), watch.StoreOptions{Compare: time.Hour})
	server.Put("/services/web/b", "192.0.2.2:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80")
	server.Kill()
	server.Wipe()
	must(t, os.CopyFS(server.Dir, os.DirFS(backup)))
	server.Start()
	r.expect("web/a 192.0.2.1:80")
	r.logged("store went back in time", 1)
}

// TestAReplacedStoreThatIsAheadIsFound has a store whose revision has overtaken ours before the watch is back: the watch
// alone cannot tell. A comparison does, the next one or the one that follows a broken connection.
func TestAReplacedStoreThatIsAheadIsFound(t *testing.T) {
	t.Parallel()
	for name, compare := range map[string]time.Duration{"by a comparison": 200 * time.Millisecond, "after a broken connection": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replacedStoreAhead(t, compare)
		})
	}
}

func replacedStoreAhead(t *testing.T, compare time.Duration) {
	t.Helper()
	server := testkit.StartEtcd(t)
	proxy := newProxy(t, server)
	server.Put("/services/web/a", "192.0.2.1:80")
	r := run(t, etcd.Config{Endpoints: []string{proxy.addr}}, watch.StoreOptions{Compare: compare})
	r.expect("web/a 192.0.2.1:80")
	proxy.set(closeAtOnce)
	server.Kill()
	server.Wipe()
	server.Start()
	for i := range 20 {
		server.Put("/services/web/b", fmt.Sprintf("192.0.2.2:%d", 80+i))
	}
	proxy.set(passOn)
	r.expect("web/b 192.0.2.2:99")
}

func TestCompactionWhileAwayLeadsToAListing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	proxy := newProxy(t, server)
	r := run(t, etcd.Config{Endpoints: []string{proxy.addr}}, watch.StoreOptions{Compare: time.Hour})
	server.Put("/services/web/a", "192.0.2.1:80")
	r.expect("web/a 192.0.2.1:80")
	proxy.set(closeAtOnce)
	client := server.Client()
	if _, err := client.Delete(t.Context(), "/services/web/a"); err != nil {
		t.Fatal(err)
	}
	revision := server.Put("/services/web/b", "192.0.2.2:80")
	if _, err := client.Compact(t.Context(), revision); err != nil {
		t.Fatal(err)
	}
	proxy.set(passOn)
	r.expect("web/b 192.0.2.2:80")
	if got := r.counter("nuncio_watch_relists_total", "compaction"); got != 1 {
		t.Errorf("listings because of compaction: %v, want 1", got)
	}
}

func TestAHalfOpenStoreIsAnOutageAndNothingIsLost(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	r := run(t, at(server), watch.StoreOptions{})
	r.expect("web/a 192.0.2.1:80")
	server.Pause()
	t.Cleanup(server.Resume) // a stopped process cannot end
	r.logged("store does not answer", 1)
	server.Resume()
	server.Put("/services/web/b", "192.0.2.2:80")
	r.expect("web/a 192.0.2.1:80", "web/b 192.0.2.2:80")
	r.logged("store answers again", 1)
}
