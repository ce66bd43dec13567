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
