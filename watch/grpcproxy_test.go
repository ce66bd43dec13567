package watch_test

import (
	"errors"
	"testing"
	"time"

	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// TestBehindAGRPCProxyTheWatchStaysOpen has etcd's grpc-proxy, which leaves requests for progress unanswered and reports
// each as an error.
func TestBehindAGRPCProxyTheWatchStaysOpen(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	server.Put("/services/web/a", "192.0.2.1:80")
	proxy := testkit.StartGRPCProxy(t, server)
	r := run(t, etcd.Config{Endpoints: []string{proxy.Addr}}, watch.StoreOptions{Keys: []string{"/config"}, Compare: 2 * time.Second})
	r.expect("web/a 192.0.2.1:80")
	r.logged("store leaves requests for progress unanswered", 1)
	refusals, sync := proxy.Refusals(), r.store.Status().LastSync
	if refusals == 0 {
		t.Fatal("the proxy has refused nothing: the test observes nothing")
	}
	// What others write moves the revision that headers have, and not that of the watch.
	server.Put("/other/a", "1")
	compared := r.comparisons("same")
	r.eventually(func() error {
		if !r.store.Status().LastSync.After(sync) || r.comparisons("same") < compared+1 {
			return errors.New("not asked for a header and compared yet")
		}
		return nil
	})
	server.Put("/services/web/a", "192.0.2.2:80")
	r.expect("web/a 192.0.2.2:80")
	server.Put("/config/a", "1")
	r.expect("web/a 192.0.2.2:80", "/config/a=1")
	if n := r.counter("nuncio_watch_reconnects_total"); n != 0 {
		t.Errorf("the watch was opened again %v times", n)
	}
	if n := proxy.Refusals(); n != refusals {
		t.Errorf("%d more requests were refused", n-refusals)
	}
	if n := r.comparisons("different"); n != 0 {
		t.Errorf("%v comparisons found a difference", n)
	}
	// A store that is away behind the proxy is away.
	server.Kill()
	r.logged("store does not answer", 1)
	server.Start()
	server.Put("/services/web/a", "192.0.2.3:80")
	r.expect("web/a 192.0.2.3:80", "/config/a=1")
	r.logged("store answers again", 1)
}
