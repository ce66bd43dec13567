package register_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

// fixed are n records that no Docker is needed for.
func fixed(n int) (register.Fixed, map[string]entry) {
	var f register.Fixed
	want := map[string]entry{}
	for i := range n {
		name := fmt.Sprintf("i%03d", i)
		f = append(f, register.Record{Service: "web", Instance: catalog.Instance{
			Name: name, Host: "192.0.2.7", Port: 1000 + i, Weight: catalog.DefaultWeight,
		}})
		want["web/"+name] = entry{fmt.Sprintf("192.0.2.7:%d", 1000+i), catalog.StateReady}
	}
	return f, want
}

// fixedRig registers n fixed records and waits until etcd has them.
func fixedRig(t *testing.T, n int) (*rig, map[string]entry) {
	t.Helper()
	r := newRig(t)
	source, want := fixed(n)
	r.opts.Source = source
	r.start()
	r.expect("start", want)
	r.steady()
	return r, want
}

func ctx10(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMoreRecordsThanOneTransactionHolds(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 250)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r.expect("left", map[string]entry{})
	_ = want
}

func TestALeaseRevokedByHandIsReplaced(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 3)
	for range 3 {
		lease := r.raw()["/services/web/i000"].lease
		if _, err := r.store.Revoke(ctx10(t), clientv3.LeaseID(lease)); err != nil {
			t.Fatal(err)
		}
		r.expect("revoked", want)
		if again := r.raw()["/services/web/i000"].lease; again == lease || again == 0 {
			t.Fatalf("the record hangs on lease %x, was %x", again, lease)
		}
	}
}

func TestKeysTouchedByHandAreRepaired(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 3)
	other := r.raw()["/services/web/i002"]
	if _, err := r.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	r.expect("deleted", want)
	own := r.raw()["/services/web/i001"]
	if _, err := r.store.Put(ctx10(t), "/services/web/i001", strings.Replace(own.value, "192.0.2.7", "192.0.2.8", 1)); err != nil {
		t.Fatal(err)
	}
	r.expect("changed", want)
	if _, err := r.store.Put(ctx10(t), "/services/web/i001", own.value); err != nil { // without a lease
		t.Fatal(err)
	}
	testkit.Eventually(t, within, func() error {
		if now := r.raw()["/services/web/i001"]; now.lease != own.lease {
			return fmt.Errorf("lease %x, want %x", now.lease, own.lease)
		}
		return nil
	})
	if now := r.raw()["/services/web/i002"]; now != other {
		t.Errorf("the record that nobody touched was written: %+v, was %+v", now, other)
	}
}

func TestAForeignKeyIsNeverTouched(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(3)
	r.opts.Source = source
	foreign := map[string]string{
		"/services/web/i000": `{"host":"198.51.100.1","port":1}`,                               // by hand
		"/services/web/i001": `{"host":"198.51.100.1","port":1,"node":"n2","registrar":"run"}`, // another node
		"/services/web/mine": `{"host":"198.51.100.1","port":1,"node":"n1"}`,                   // claims to be this node's, but no registrar wrote it
		"/services/web/held": `{"host":"198.51.100.1","port":1,"node":"n1","registrar":"hold"}`,
		"/services/x/broken": `not a record`,
	}
	for key, value := range foreign {
		r.etcd.Put(key, value)
	}
	r.start()
	r.logged("record not written", "/services/web/i000", "no nuncio-registrar")
	r.logged("record not written", "/services/web/i001", "node n2")
	testkit.Eventually(t, within, func() error {
		got := r.raw()
		if _, ok := got["/services/web/i002"]; !ok {
			return errors.New("no record i002")
		}
		for key, value := range foreign {
			if got[key].value != value {
				return fmt.Errorf("%s is %s, want %s", key, got[key].value, value)
			}
		}
		return nil
	})
	for key := range foreign {
		if _, err := r.store.Delete(ctx10(t), key); err != nil {
			t.Fatal(err)
		}
	}
	r.expect("the keys are free", want)
}

func TestEtcdWiped(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 3)
	for range 40 {
		r.etcd.Put("/elsewhere", "x") // so that the new store is far behind the old one's revision
	}
	r.etcd.Kill()
	r.etcd.Wipe()
	r.etcd.Start()
	r.expect("wiped", want)
	r.steady()
}

func TestEtcdStopped(t *testing.T) {
	t.Parallel()
	down := register.MinTTL + 2*time.Second
	if long() {
		down = time.Minute
	}
	r := newRig(t)
	stays := r.web(containers.Spec{})
	goes := r.web(containers.Spec{})
	r.start()
	r.expect("start", r.truth(catalog.StateReady, stays, goes))
	before := r.raw()["/services/"+r.key("web", stays)]
	r.etcd.Stop()
	began := time.Now()
	goes.Stop()
	comes := r.web(containers.Spec{})
	r.logged("etcd does not answer")
	if s := r.reg.Status(); s.State != "waiting" || s.Etcd == "" {
		t.Errorf("state %q, etcd %q while etcd is away", s.State, s.Etcd)
	}
	time.Sleep(down - time.Since(began)) // the outage itself
	r.etcd.Start()
	r.expect("etcd is back", r.truth(catalog.StateReady, stays, comes))
	// etcd gives every lease its full time again when it starts, so nothing of this record had to change.
	if after := r.raw()["/services/"+r.key("web", stays)]; after != before {
		t.Errorf("the record of an unchanged container was written: %+v, was %+v", after, before)
	}
	if n := strings.Count(r.log.String(), "etcd does not answer"); n != 1 {
		t.Errorf("the outage was logged %d times, want once", n)
	}
}

func TestEtcdFrozen(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 3)
	r.etcd.Pause()
	time.Sleep(register.MinTTL + time.Second) // the outage itself
	r.etcd.Resume()
	r.expect("thawed", want)
	r.steady()
	r.expect("still", want)
}

func TestSteadyStateWritesNothing(t *testing.T) {
	t.Parallel()
	n, still := 8, 3*time.Second
	if long() {
		n, still = 200, time.Minute
	}
	r := newRig(t)
	r.docker.Sweep, r.opts.Sweep = 300*time.Millisecond, 300*time.Millisecond
	cs := make([]*containers.Container, n)
	for i := range cs {
		cs[i] = r.web(containers.Spec{})
	}
	r.start()
	r.expect("start", r.truth(catalog.StateReady, cs...))
	r.steady()
	before := r.revision()
	time.Sleep(still) // ten sweeps and more
	if after := r.revision(); after != before {
		t.Errorf("revision %d after %v of nothing, was %d", after, still, before)
	}
	t.Logf("%d containers: revision %d stood still for %v", n, before, still)
}

func TestASuccessorTakesTheLeaseOver(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 3)
	r.opts.Leave = false
	if err := r.stop(); err != nil { // this one leaves its records...
		t.Fatal(err)
	}
	r.expect("left with Leave", map[string]entry{})
	r.start()
	r.expect("second", want)
	before := r.raw()
	if err := r.stop(); err != nil { // ...this one keeps them
		t.Fatal(err)
	}
	r.start()
	r.steady()
	time.Sleep(register.MinTTL + time.Second) // the lease would have ended
	if diff := cmp.Diff(before, r.raw(), cmp.AllowUnexported(raw{})); diff != "" {
		t.Errorf("records changed (-before +after):\n%s", diff)
	}
}

func TestASecondRegistrarOfOneNodeIsRefused(t *testing.T) {
	t.Parallel()
	r, want := fixedRig(t, 2)
	second := rigOn(t, r.etcd, "")
	second.opts = r.opts
	source, _ := fixed(1)
	second.opts.Source = source
	_, run, closeAll := second.make()
	defer closeAll()
	err := run(ctx10(t))
	if !errors.Is(err, register.ErrClaimed) || !strings.Contains(err.Error(), `node "n1" is served by pid`) {
		t.Fatalf("error %v, want ErrClaimed with the holder", err)
	}
	r.expect("the first goes on", want)
	r.steady()
}

// foreignClaim writes the claim of a registrar on another host, with records under its lease.
func foreignClaim(t *testing.T, r *rig, records register.Fixed) clientv3.LeaseID {
	t.Helper()
	lease, err := r.store.Grant(ctx10(t), int64(register.MinTTL/time.Second))
	if err != nil {
		t.Fatal(err)
	}
	claim, _ := json.Marshal(map[string]any{"instance": "other", "node": "n1", "registrar": "run", "hostname": "elsewhere", "pid": 1, "boot_id": "b", "pid_namespace": "p"})
	if _, err := r.store.Put(ctx10(t), "/nuncio/registrars/n1", string(claim), clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		value, err := catalog.Encode(&rec.Instance, catalog.Member{Name: "node", Value: "n1"}, catalog.Member{Name: "registrar", Value: "run"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Put(ctx10(t), "/services/web/"+rec.Instance.Name, string(value), clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	return lease.ID
}

func TestARegistrarOnAnotherHostIsRefusedWhileTheFirstLives(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, _ := fixed(2)
	r.opts.Source = source
	lease := foreignClaim(t, r, source)
	alive, err := r.store.KeepAlive(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive { // the other host renews its lease until the test ends
		}
	}()
	_, run, closeAll := r.make()
	defer closeAll()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := run(ctx); !errors.Is(err, register.ErrClaimed) || !strings.Contains(err.Error(), "host elsewhere") {
		t.Fatalf("error %v, want ErrClaimed with the other host", err)
	}
}

func TestARegistrarThatVanishedElsewhereIsReplacedWithoutAFlap(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(2)
	r.opts.Source = source
	foreignClaim(t, r, source)
	before := r.raw()
	r.start()
	r.steady()
	time.Sleep(register.MinTTL + time.Second) // the lease would have ended
	r.expect("taken over", want)
	if diff := cmp.Diff(before, r.raw(), cmp.AllowUnexported(raw{})); diff != "" {
		t.Errorf("records changed (-before +after):\n%s", diff)
	}
}

func TestARegistrarThatLostItsClaimStops(t *testing.T) {
	t.Parallel()
	r, _ := fixedRig(t, 2)
	lease, err := r.store.Grant(ctx10(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := r.store.KeepAlive(t.Context(), lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive { // the thief lives
		}
	}()
	claim := `{"instance":"thief","node":"n1","hostname":"elsewhere"}`
	// A short lease, renewed fast enough to be seen, would need seconds; a process that lives needs none.
	if _, err := r.store.Put(ctx10(t), "/nuncio/registrars/n1", claim, clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	// Its next write is refused: the deleted record does not come back while somebody else holds the claim.
	r.logged("a registrar of this node was here", "elsewhere")
	if _, there := r.raw()["/services/web/i000"]; there {
		t.Error("a registrar without the claim has written")
	}
}

func TestWithoutPermissionForTheClaimItWorksAndSaysSo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(2)
	r.opts.Source = source
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := r.store.UserAdd(ctx, "root", "secret"); return err },
		func(ctx context.Context) error { _, err := r.store.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := r.store.RoleAdd(ctx, "registrar"); return err },
		func(ctx context.Context) error {
			_, err := r.store.RoleGrantPermission(ctx, "registrar", "/services/", "/services0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := r.store.UserAdd(ctx, "n1", "word"); return err },
		func(ctx context.Context) error { _, err := r.store.UserGrantRole(ctx, "n1", "registrar"); return err },
		func(ctx context.Context) error { _, err := r.store.AuthEnable(ctx); return err },
	} {
		if err := step(ctx10(t)); err != nil {
			t.Fatal(err)
		}
	}
	r.user, r.password = "n1", "word"
	var err error
	if r.store, err = clientv3.New(clientv3.Config{Endpoints: []string{r.etcd.Endpoint}, Username: "n1", Password: "word"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.store.Close() })
	r.start()
	r.expect("no claim", want)
	r.logged("no permission for the claim key", "/nuncio/registrars/n1")
	if _, err := r.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	r.expect("repaired", want)
}
