package watch_test

import (
	"fmt"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/watch"
)

// The server would answer a listing of these values with one message of 84 MB; with its largest quota, of 2 GB.
func TestAListingOfHugeValuesStillArrives(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := server.Client()
	server.Put("/services/web/a", "192.0.2.1:80")
	huge := strings.Repeat("x", 1400<<10)
	for i := range 60 {
		_, err := client.Put(t.Context(), fmt.Sprintf("/services/aaa/%02d", i), huge)
		must(t, err)
	}
	r := run(t, at(server), watch.StoreOptions{})
	snap := r.expect("web/a 192.0.2.1:80")
	if len(snap.Quarantined) != 60 {
		t.Fatalf("%d records are quarantined, want 60", len(snap.Quarantined))
	}
	if got := len(snap.Quarantined[0].Value); got > 1000 {
		t.Errorf("%d bytes of a value are kept", got)
	}
}

// Those who fill the store cannot push out what was there before, by whatever name they sort in front.
func TestAFullStoreKeepsItsOldestRecordsWhateverTheListingsOrder(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := server.Client()
	server.Put("/services/web/a", "192.0.2.1:80")
	for i := range 40 {
		_, err := client.Do(t.Context(), clientv3.OpPut(fmt.Sprintf("/services/aaa/%02d", i), "192.0.2.1:80"))
		must(t, err)
	}
	r := run(t, at(server), watch.StoreOptions{Limits: catalog.Limits{Keys: 10}})
	var want []string
	for i := range 9 {
		want = append(want, fmt.Sprintf("aaa/%02d 192.0.2.1:80", i))
	}
	r.expect(append(want, "web/a 192.0.2.1:80")...)
	server.Put("/services/web/a", "192.0.2.2:80")
	r.expect(append(want, "web/a 192.0.2.2:80")...)
}

// TestRecordsBeyondTheLimitComeInAtOnce has more records than are kept aside as well, so that some need a listing.
func TestRecordsBeyondTheLimitComeInAtOnce(t *testing.T) {
	t.Parallel()
	server := testkit.StartEtcd(t)
	client := server.Client()
	r := run(t, at(server), watch.StoreOptions{Limits: catalog.Limits{Keys: 10}})
	r.expect()
	put := func(from, to int) {
		t.Helper()
		for from < to {
			var ops []clientv3.Op
			for ; from < to && len(ops) < 100; from++ {
				ops = append(ops, clientv3.OpPut(fmt.Sprintf("/services/web/%04d", from), "192.0.2.1:80"))
			}
			_, err := client.Txn(t.Context()).Then(ops...).Commit()
			must(t, err)
		}
	}
	remove := func(from, to int) {
		t.Helper()
		_, err := client.Delete(t.Context(), fmt.Sprintf("/services/web/%04d", from), clientv3.WithRange(fmt.Sprintf("/services/web/%04d", to)))
		must(t, err)
	}
	list := func(from, to int) (want []string) {
		for ; from < to; from++ {
			want = append(want, fmt.Sprintf("web/%04d 192.0.2.1:80", from))
		}
		return want
	}
	put(0, 7)
	r.expect(list(0, 7)...)
	if s := r.store.Status(); s.NearLimit != "" {
		t.Errorf("with 7 of 10: %q", s.NearLimit)
	}
	put(7, 8)
	r.expect(list(0, 8)...)
	r.logged("near the limit of what is kept of the store", 1)
	if s := r.store.Status(); !strings.HasPrefix(s.NearLimit, "80 % of the 10 keys that --max-records allows") {
		t.Errorf("with 8 of 10: %q", s.NearLimit)
	}
	put(8, 1100)
	r.expect(list(0, 10)...)
	remove(0, 5)
	r.expect(list(5, 15)...)
	if n := r.counter("nuncio_watch_relists_total", "room"); n != 0 {
		t.Errorf("%v listings for records that were kept aside", n)
	}
	remove(5, 1080)
	r.expect(list(1080, 1090)...)
	if n := r.counter("nuncio_watch_relists_total", "room"); n != 1 {
		t.Errorf("%v listings for records that were not, want 1", n)
	}
	remove(1080, 1095)
	r.expect(list(1095, 1100)...)
	if s := r.store.Status(); s.NearLimit != "" {
		t.Errorf("with 5 of 10: %q", s.NearLimit)
	}
	if n, limit := r.counter("nuncio_keys"), r.counter("nuncio_keys_limit"); n != 5 || limit != 10 {
		t.Errorf("nuncio_keys is %v of %v, want 5 of 10", n, limit)
	}
}
