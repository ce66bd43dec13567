package register_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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

// fixedHarness registers n fixed records and waits until etcd has them.
func fixedHarness(t *testing.T, n int) (*harness, map[string]entry) {
	t.Helper()
	h := newHarness(t)
	source, want := fixed(n)
	h.opts.Source, h.opts.ResyncInterval = source, 200*time.Millisecond
	h.start()
	h.expect("start", want)
	h.awaitRunning()
	return h, want
}

func ctx10(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestMoreRecordsThanOneTransactionHolds(t *testing.T) {
	t.Parallel()
	h, _ := fixedHarness(t, 250)
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	h.expect("removed", map[string]entry{})
}

func TestALeaseRevokedByHandIsReplaced(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 3)
	for range 3 {
		lease := h.raw()["/services/web/i000"].lease
		if _, err := h.store.Revoke(ctx10(t), clientv3.LeaseID(lease)); err != nil {
			t.Fatal(err)
		}
		h.expect("revoked", want)
		if again := h.raw()["/services/web/i000"].lease; again == lease || again == 0 {
			t.Fatalf("the record hangs on lease %x, was %x", again, lease)
		}
	}
}

func TestKeysTouchedByHandAreRepaired(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 3)
	other := h.raw()["/services/web/i002"]
	if _, err := h.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	h.expect("deleted", want)
	own := h.raw()["/services/web/i001"]
	if _, err := h.store.Put(ctx10(t), "/services/web/i001", strings.Replace(own.value, "192.0.2.7", "192.0.2.8", 1)); err != nil {
		t.Fatal(err)
	}
	h.expect("changed", want)
	if _, err := h.store.Put(ctx10(t), "/services/web/i001", own.value); err != nil { // without a lease
		t.Fatal(err)
	}
	testkit.Eventually(t, within, func() error {
		if now := h.raw()["/services/web/i001"]; now.lease != own.lease {
			return fmt.Errorf("lease %x, want %x", now.lease, own.lease)
		}
		return nil
	})
	if now := h.raw()["/services/web/i002"]; now != other {
		t.Errorf("the record that nobody touched was written: %+v, was %+v", now, other)
	}
}

func TestAForeignKeyIsNeverTouched(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(3)
	h.opts.Source, h.opts.ResyncInterval = source, 200*time.Millisecond
	foreign := map[string]string{
		"/services/web/i000": `{"host":"198.51.100.1","port":1}`,                               // by hand
		"/services/web/i001": `{"host":"198.51.100.1","port":1,"node":"n2","registrar":"run"}`, // another node
		"/services/web/mine": `{"host":"198.51.100.1","port":1,"node":"n1"}`,                   // claims to be this node's, but no registrar wrote it
		"/services/web/kind": `{"host":"198.51.100.1","port":1,"node":"n1","registrar":"register"}`,
		"/services/x/broken": `not a record`,
	}
	for key, value := range foreign {
		h.etcd.Put(key, value)
	}
	h.start()
	h.awaitLog("record not written", "/services/web/i000", "a writer other than nuncio-registrar")
	h.awaitLog("record not written", "/services/web/i001", "node n2")
	testkit.Eventually(t, within, func() error {
		got := h.raw()
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
		if _, err := h.store.Delete(ctx10(t), key); err != nil {
			t.Fatal(err)
		}
	}
	h.expect("the keys are free", want)
}

func TestEtcdWiped(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 3)
	for range 40 {
		h.etcd.Put("/elsewhere", "x") // so that the new store is far behind the old one's revision
	}
	h.etcd.Kill()
	h.etcd.Wipe()
	h.etcd.Start()
	h.expect("wiped", want)
	h.awaitRunning()
}

func TestARecordThatABackupBringsBackIsRemoved(t *testing.T) {
	t.Parallel()
	h, sets := newHarness(t), make(changing, 1)
	h.opts.Source, h.opts.ResyncInterval, h.opts.TTL = sets, 100*time.Millisecond, time.Minute
	two, wantTwo := fixed(2)
	one, wantOne := fixed(1)
	h.start()
	sets <- two
	h.expect("start", wantTwo)
	h.etcd.Stop()
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(h.etcd.Dir)); err != nil {
		t.Fatal(err)
	}
	h.etcd.Start()
	sets <- one
	h.expect("one is removed", wantOne)
	h.etcd.Stop()
	h.etcd.Wipe()
	if err := os.CopyFS(h.etcd.Dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	h.awaitLog("request to etcd failed")
	h.etcd.Start()
	for range 10 { // so that the revision is not behind
		h.etcd.Put("/elsewhere", "x")
	}
	h.expect("restored", wantOne)
}

func TestEtcdStopped(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.opts.TTL = register.MinTTL // time for the registrar to come back before the lease ends
	stays := h.web(containers.Spec{})
	goes := h.web(containers.Spec{})
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, stays, goes))
	before := h.raw()["/services/"+h.key("web", stays)]
	h.etcd.Stop()
	goes.Stop()
	comes := h.web(containers.Spec{})
	h.awaitLog("request to etcd failed")
	if s := h.reg.Status(); s.State != "waiting" || s.Etcd == "" {
		t.Errorf("state %q, etcd %q while etcd is away", s.State, s.Etcd)
	}
	h.awaitLog("could not be renewed") // the outage is longer than the lease
	if longTests() {
		time.Sleep(time.Minute)
	}
	h.etcd.Start()
	h.expect("etcd is back", h.recordsOf(catalog.StateReady, stays, comes))
	// etcd gives every lease its full time again when it starts, so nothing of this record had to change.
	if after := h.raw()["/services/"+h.key("web", stays)]; after != before {
		t.Errorf("the record of an unchanged container was written: %+v, was %+v", after, before)
	}
	if n := strings.Count(h.log.String(), "request to etcd failed"); n != 1 {
		t.Errorf("the outage was logged %d times, want once", n)
	}
}

func TestEtcdFrozen(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 3)
	h.etcd.Pause()
	h.awaitLog("could not be renewed")
	h.etcd.Resume()
	h.expect("it goes on", want)
	h.awaitRunning()
	h.expect("still", want)
}

func TestSteadyStateWritesNothing(t *testing.T) {
	t.Parallel()
	n, resyncs := 8, 10.0
	if longTests() {
		n, resyncs = 200, 200
	}
	h := newHarness(t)
	h.docker.ResyncInterval, h.opts.ResyncInterval = 300*time.Millisecond, 300*time.Millisecond
	cs := make([]*containers.Container, n)
	for i := range cs {
		cs[i] = h.web(containers.Spec{})
	}
	h.start()
	h.expect("start", h.recordsOf(catalog.StateReady, cs...))
	h.awaitRunning()
	before := h.revision()
	h.awaitValue("resyncs_total", h.value("resyncs_total")+resyncs)
	if after := h.revision(); after != before {
		t.Errorf("revision %d after %v resyncs without a change, was %d", after, resyncs, before)
	}
}

func TestASuccessorTakesTheLeaseOver(t *testing.T) {
	t.Parallel()
	h, want := fixedHarness(t, 3)
	h.opts.RemoveOnExit = false
	if err := h.stop(); err != nil { // this one removes its records...
		t.Fatal(err)
	}
	h.expect("removed", map[string]entry{})
	h.start()
	h.expect("second", want)
	before := h.raw()
	if err := h.stop(); err != nil { // ...this one keeps them
		t.Fatal(err)
	}
	h.start()
	h.awaitRunning()
	h.awaitRenewal()
	if diff := cmp.Diff(before, h.raw(), cmp.AllowUnexported(raw{})); diff != "" {
		t.Errorf("records changed (-before +after):\n%s", diff)
	}
}

func TestASecondRegistrarOfOneNodeIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	first, want := fixed(2)
	// With a short TTL a pause of a second would make the first one seem dead.
	h.opts.Source, h.opts.TTL = first, register.DefaultTTL
	h.start()
	h.expect("start", want)
	second := harnessOn(t, h.etcd, "")
	second.opts = h.opts
	second.opts.Metrics = nil
	source, _ := fixed(1)
	second.opts.Source = source
	_, run, closeAll := second.make()
	defer closeAll()
	err := run(ctx10(t))
	if !errors.Is(err, register.ErrClaimed) || !strings.Contains(err.Error(), `node "n1" is served by pid`) {
		t.Fatalf("error %v, want ErrClaimed with the holder", err)
	}
	h.expect("the first goes on", want)
	h.awaitRunning()
}

// foreignClaim writes the claim of a registrar on another host, with records under its lease.
func foreignClaim(t *testing.T, h *harness, records register.Fixed) clientv3.LeaseID {
	t.Helper()
	lease, err := h.store.Grant(ctx10(t), int64(h.opts.TTL/time.Second))
	if err != nil {
		t.Fatal(err)
	}
	claim, _ := json.Marshal(map[string]any{"instance": "other", "node": "n1", "registrar": "run", "hostname": "elsewhere", "pid": 1})
	if _, err := h.store.Put(ctx10(t), "/nuncio/registrars/n1", string(claim), clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		value, err := catalog.Encode(&rec.Instance, catalog.Member{Name: "node", Value: "n1"}, catalog.Member{Name: "registrar", Value: "run"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.store.Put(ctx10(t), "/services/web/"+rec.Instance.Name, string(value), clientv3.WithLease(lease.ID)); err != nil {
			t.Fatal(err)
		}
	}
	return lease.ID
}

func TestARegistrarOnAnotherHostIsRefusedWhileTheFirstLives(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, _ := fixed(2)
	h.opts.Source = source
	h.opts.TTL = register.DefaultTTL
	lease := foreignClaim(t, h, source)
	alive, err := h.store.KeepAlive(t.Context(), lease)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive { // the other host renews its lease until the test ends
		}
	}()
	_, run, closeAll := h.make()
	defer closeAll()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	if err := run(ctx); !errors.Is(err, register.ErrClaimed) || !strings.Contains(err.Error(), "host elsewhere") {
		t.Fatalf("error %v, want ErrClaimed with the other host", err)
	}
}

func TestTakingOverFromALostHostChangesNoRecord(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(2)
	h.opts.Source, h.opts.TTL = source, register.MinTTL
	foreignClaim(t, h, source)
	before := h.raw()
	h.start()
	h.awaitRunning()
	h.awaitRenewal()
	h.expect("taken over", want)
	if diff := cmp.Diff(before, h.raw(), cmp.AllowUnexported(raw{})); diff != "" {
		t.Errorf("records changed (-before +after):\n%s", diff)
	}
}

func TestARegistrarThatLostItsClaimStops(t *testing.T) {
	t.Parallel()
	h, _ := fixedHarness(t, 2)
	lease, err := h.store.Grant(ctx10(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	alive, err := h.store.KeepAlive(t.Context(), lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive { // the other registrar lives
		}
	}()
	claim := `{"instance":"other","node":"n1","hostname":"elsewhere"}`
	if _, err := h.store.Put(ctx10(t), "/nuncio/registrars/n1", claim, clientv3.WithLease(lease.ID)); err != nil {
		t.Fatal(err)
	}
	if _, err := h.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	// Its next write is refused: the deleted record does not come back while a different registrar holds the claim.
	h.awaitLog("waiting to see whether it renews its lease", "elsewhere")
	if _, there := h.raw()["/services/web/i000"]; there {
		t.Error("a registrar without the claim has written")
	}
}

func TestWithoutPermissionForTheClaimARegistrarWorksAndWarns(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(2)
	h.opts.Source, h.opts.ResyncInterval = source, 200*time.Millisecond
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := h.store.UserAdd(ctx, "root", "secret"); return err },
		func(ctx context.Context) error { _, err := h.store.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := h.store.RoleAdd(ctx, "registrar"); return err },
		func(ctx context.Context) error {
			_, err := h.store.RoleGrantPermission(ctx, "registrar", "/services/", "/services0", clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func(ctx context.Context) error { _, err := h.store.UserAdd(ctx, "n1", "word"); return err },
		func(ctx context.Context) error { _, err := h.store.UserGrantRole(ctx, "n1", "registrar"); return err },
		func(ctx context.Context) error { _, err := h.store.AuthEnable(ctx); return err },
	} {
		if err := step(ctx10(t)); err != nil {
			t.Fatal(err)
		}
	}
	h.user, h.password = "n1", "word"
	var err error
	if h.store, err = clientv3.New(clientv3.Config{Endpoints: []string{h.etcd.Endpoint}, Username: "n1", Password: "word"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.store.Close() })
	h.start()
	h.expect("no claim", want)
	h.awaitLog("no permission for the claim key", "/nuncio/registrars/n1")
	if _, err := h.store.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	h.expect("repaired", want)
}

// unwritable is a KV that fails transactions which write a key.
type unwritable struct {
	clientv3.KV
	key string
}

func (u unwritable) Txn(ctx context.Context) clientv3.Txn {
	return &unwritableTxn{Txn: u.KV.Txn(ctx), key: u.key}
}

type unwritableTxn struct {
	clientv3.Txn
	key   string
	fails bool
}

func (u *unwritableTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	u.Txn = u.Txn.If(cs...)
	return u
}

func (u *unwritableTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	for _, op := range ops {
		u.fails = u.fails || op.IsPut() && string(op.KeyBytes()) == u.key
	}
	u.Txn = u.Txn.Then(ops...)
	return u
}

func (u *unwritableTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	u.Txn = u.Txn.Else(ops...)
	return u
}

func (u *unwritableTxn) Commit() (*clientv3.TxnResponse, error) {
	if u.fails {
		return nil, errors.New("the claim cannot be written")
	}
	return u.Txn.Commit()
}

func TestAClaimThatIsNotWrittenLeavesNoLease(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	h.opts.Source, _ = fixed(1)
	h.opts.TTL = time.Minute
	h.wrapKV = func(kv clientv3.KV) clientv3.KV { return unwritable{kv, "/nuncio/registrars/n1"} }
	h.start()
	h.awaitLog("request to etcd failed", "the claim cannot be written")
	h.awaitValue("leases_granted_total", 4)
	resp, err := h.store.Leases(ctx10(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := len(resp.Leases); n > 1 { // one attempt may be under way
		t.Errorf("etcd has %d leases after 4 attempts to write the claim, want 1 at most", n)
	}
}
