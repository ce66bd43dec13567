package watch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"nuncio/internal/testkit"
	"nuncio/watch"
)

// lossy returns a client whose watches leave out the events of keys with a part, while that is not empty.
func lossy(t *testing.T, server *testkit.Etcd, part *atomic.Pointer[string]) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{server.Endpoint},
		DialOptions: []grpc.DialOption{grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
			method string, open grpc.Streamer, opts ...grpc.CallOption,
		) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			return &lossyStream{stream, part}, err
		})},
	})
	must(t, err)
	return client
}

type lossyStream struct {
	grpc.ClientStream

	part *atomic.Pointer[string]
}

func (s *lossyStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if resp, ok := m.(*etcdserverpb.WatchResponse); ok && err == nil {
		resp.Events = slices.DeleteFunc(resp.Events, func(e *mvccpb.Event) bool {
			part := s.part.Load()
			return part != nil && strings.Contains(string(e.Kv.Key), *part)
		})
	}
	return err
}

// comparisons returns how many comparisons had a result.
func (r *running) comparisons(result string) float64 {
	return r.counter("nuncio_watch_comparisons_total", result)
}

func (r *running) compared(times float64) {
	r.t.Helper()
	r.eventually(func() error {
		if n := r.comparisons("same"); n < times {
			return fmt.Errorf("%v comparisons found no difference, want %v; %v found one", n, times, r.comparisons("different"))
		}
		return nil
	})
}

func TestComparisonsOfTheSameAreNoNewsAndListNothing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	r := run(t, at(server), watch.StoreOptions{
		// If a comparison counted as a change, it would delay the next delivery again and again.
		Keys: []string{"/config"}, Compare: 20 * time.Millisecond,
	})
	first := r.expect("web/a 192.0.2.1:80")
	r.compared(30)
	server.Put("/services/db/a", "192.0.2.2:80")
	second := r.expect("db/a 192.0.2.2:80", "web/a 192.0.2.1:80")
	if r.count != 2 {
		t.Errorf("%d deliveries for two contents", r.count)
	}
	if first.Service("web") != second.Service("web") {
		t.Error("a comparison changed the pointer of a service that did not change")
	}
	// Neither keys of others nor deletions are a difference.
	server.Put("/other/a", "1")
	client := server.Client()
	for _, key := range []string{"/services/db/a", "/services/web/a"} {
		_, err := client.Delete(t.Context(), key)
		must(t, err)
	}
	r.expect()
	server.Put("/config/a", "1")
	r.expect("/config/a=1")
	r.compared(r.comparisons("same") + 30)
	if n := r.comparisons("different"); n != 0 {
		t.Errorf("%v comparisons found a difference:\n%s", n, r.log)
	}
	if n := r.counter("nuncio_watch_relists_total", "drift"); n != 0 {
		t.Errorf("%v listings because of them", n)
	}
}

// TestAnEventThatTheWatchLostIsFound leaves out what etcd reported of some changes.
func TestAnEventThatTheWatchLostIsFound(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(put, remove func(key string)){
		"a new key":                    func(put, _ func(string)) { put("/services/lost/b") },
		"a deletion":                   func(_, remove func(string)) { remove("/services/lost/a") },
		"a change of a key":            func(put, _ func(string)) { put("/services/lost/a") },
		"a new key and a deletion":     func(put, remove func(string)) { put("/services/lost/b"); remove("/services/lost/a") },
		"the same key, gone and again": func(put, remove func(string)) { remove("/services/lost/a"); put("/services/lost/a") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := testkit.StartEtcd(t)
			server.Put("/services/lost/a", "192.0.2.1:80")
			var part atomic.Pointer[string]
			r := runWith(t, lossy(t, server, &part), watch.StoreOptions{Compare: 40 * time.Millisecond})
			r.expect("lost/a 192.0.2.1:80")
			what := "/lost/"
			part.Store(&what)
			client := server.Client()
			want := []string{"lost/a 192.0.2.1:80"}
			lose(func(key string) {
				server.Put(key, "192.0.2.2:80")
				instance := strings.TrimPrefix(key, "/services/")
				want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, instance) })
				want = append(want, instance+" 192.0.2.2:80")
			}, func(key string) {
				_, err := client.Delete(t.Context(), key)
				must(t, err)
				want = slices.DeleteFunc(want, func(s string) bool { return strings.HasPrefix(s, strings.TrimPrefix(key, "/services/")) })
			})
			// A later change, which arrives, hides nothing.
			server.Put("/services/web/a", "192.0.2.3:80")
			r.expect(append(want, "web/a 192.0.2.3:80")...)
			if r.counter("nuncio_watch_relists_total", "drift") == 0 {
				t.Error("no listing: nothing was lost")
			}
			r.logged("store has something else than its watch reported", int(r.comparisons("different")))
		})
	}
}

// TestComparisonsDuringWritesFindNoDifference has comparisons and events race for a while, among them events of keys that
// come and go.
func TestComparisonsDuringWritesFindNoDifference(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	r := run(t, at(server), watch.StoreOptions{Compare: time.Millisecond})
	r.expect()
	client := server.Client()
	for i := range 1000 {
		key := fmt.Sprintf("/services/web/%d", i%7)
		_, err := client.Put(t.Context(), key, fmt.Sprintf("192.0.2.1:%d", i+1))
		if i%3 == 0 {
			_, err = client.Delete(t.Context(), key)
		}
		must(t, err)
	}
	server.Put("/services/web/last", "192.0.2.1:80")
	r.eventually(func() error {
		if r.last = <-r.out; !slices.Contains(content(r.last), "web/last 192.0.2.1:80") {
			return errors.New("the last change is not there yet")
		}
		return nil
	})
	if same, different := r.comparisons("same"), r.comparisons("different"); same < 3 || different != 0 {
		t.Errorf("%v comparisons found no difference, %v found one:\n%s", same, different, r.log)
	}
}

// TestListingsDuringWritesLoseNothing has listings and events race for a while: events of another service are lost all the
// time, and so everything is listed all the time.
func TestListingsDuringWritesLoseNothing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	var part atomic.Pointer[string]
	what := "/lost/"
	part.Store(&what)
	r := runWith(t, lossy(t, server, &part), watch.StoreOptions{Compare: time.Millisecond})
	r.expect()
	client := server.Client()
	seen := make(chan struct{})
	go func() {
		defer close(seen)
		highest := 0
		for snap := range r.out {
			web := snap.Service("web")
			if web == nil {
				continue
			}
			if web.Instances[0].Port < highest {
				t.Errorf("after %d came %+v: a listing undid an event", highest, web)
				return
			}
			if highest = web.Instances[0].Port; highest == 1500 {
				return
			}
		}
	}()
	for i := range 1500 {
		if i%2 == 0 {
			_, err := client.Put(t.Context(), fmt.Sprintf("/services/lost/%d", i), "192.0.2.1:80")
			must(t, err)
		}
		_, err := client.Put(t.Context(), "/services/web/a", fmt.Sprintf("192.0.2.1:%d", i+1))
		must(t, err)
	}
	select {
	case <-seen:
	case <-time.After(limit):
		t.Fatal("the last change was never delivered")
	}
	n := r.counter("nuncio_watch_relists_total", "drift")
	t.Logf("%v listings", n)
	if n < 2 {
		t.Errorf("%v listings: they did not race with anything", n)
	}
}

// TestAtRestTheStoreSendsNextToNothing counts what comes from etcd while nothing changes: 1,000 proxies share it.
func TestAtRestTheStoreSendsNextToNothing(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := server.Client()
	var ops []clientv3.Op
	for i := range 120 {
		ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/web/%d", i), `{"host":"192.0.2.1","port":80,"meta":{"x":"`+strings.Repeat("x", 300)+`"}}`))
	}
	_, err := client.Txn(t.Context()).Then(ops...).Commit()
	must(t, err)
	p := newProxy(t, server)
	config := at(server)
	config.Endpoints = []string{p.addr}
	r := run(t, config, watch.StoreOptions{Compare: 2 * time.Second})
	r.last = <-r.out
	r.compared(1)
	const observed = 4 * time.Second
	before, compared := p.received.Load(), r.comparisons("same")
	time.Sleep(observed)
	bytes, compared := p.received.Load()-before, r.comparisons("same")-compared
	t.Logf("%d bytes in %v, with %v comparisons", bytes, observed, compared)
	if perSecond := float64(bytes) / observed.Seconds(); perSecond > 500 || compared == 0 {
		t.Errorf("%.0f bytes a second with %v comparisons in %v, want at most 500 with at least one", perSecond, compared, observed)
	}
}
