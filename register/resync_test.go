package register_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/testkit"
	"nuncio/register"
)

// requests returns how many calls of one method etcd has answered.
func requests(t *testing.T, e *testkit.Etcd, method string) float64 {
	t.Helper()
	text, err := testkit.Get(e.Endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^grpc_server_handled_total\{grpc_code="OK",grpc_method="` + method + `".*\} (\S+)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("etcd's metrics lack the method %s", method)
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAResyncOfUnchangedKeysReadsNone(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(250)
	h.opts.Source, h.opts.ResyncInterval = source, 50*time.Millisecond
	h.start()
	h.expect("start", want)
	h.awaitRunning()
	reads, compares := requests(t, h.etcd, "Range"), requests(t, h.etcd, "Txn")
	testkit.Eventually(t, within, func() error {
		if n := requests(t, h.etcd, "Txn") - compares; n < 30 { // three for 250 keys
			return fmt.Errorf("%v transactions", n)
		}
		return nil
	})
	if n := requests(t, h.etcd, "Range") - reads; n != 0 {
		t.Errorf("%v reads in ten resyncs without a change, want none", n)
	}
	if n := h.value("drift_total"); n != 0 {
		t.Errorf("%v resyncs found a change, and there was none", n)
	}
}

func TestARegistrarRecoversFromACutConnection(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d records", n), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t)
			proxy := testkit.StartFaultProxy(t, strings.TrimPrefix(h.etcd.Endpoint, "http://"))
			source, want := fixed(n)
			// The lease outlives the cut: taking a different one would show that etcd answers, too.
			h.opts.TTL, h.opts.ResyncInterval = time.Minute, 100*time.Millisecond
			h.opts.Source, h.endpoint = source, "http://"+proxy.Addr
			h.start()
			h.awaitRunning()
			proxy.Cut()
			testkit.Eventually(t, within, func() error {
				if s := h.reg.Status(); s.Etcd == "" || s.Ready {
					return fmt.Errorf("state %s, ready %t while the connection is cut", s.State, s.Ready)
				}
				return nil
			})
			proxy.Join()
			h.awaitRunning()
			h.awaitLog("requests to etcd succeed again")
			if s := h.reg.Status(); !s.Ready {
				t.Errorf("not ready: %+v", s)
			}
			h.expect("still", want)
		})
	}
}

// silent is a source that has published nothing yet, as Docker when it does not answer.
type silent struct{}

func (silent) Run(ctx context.Context, _ func(register.Published)) error {
	<-ctx.Done()
	return nil
}

// TestADryRunRecoversFromACutConnection has a registrar that never writes, and so has no write that would show the end of an outage.
func TestADryRunRecoversFromACutConnection(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	proxy := testkit.StartFaultProxy(t, strings.TrimPrefix(h.etcd.Endpoint, "http://"))
	h.opts.Source, h.opts.DryRun, h.endpoint = silent{}, true, "http://"+proxy.Addr
	proxy.Cut()
	h.start()
	h.awaitLog("request to etcd failed")
	proxy.Join()
	testkit.Eventually(t, within, func() error {
		if s := h.reg.Status(); s.Etcd != "" {
			return errors.New(s.Etcd)
		}
		return nil
	})
}

// TestAWriteThatEtcdRefusesIsOneOutage takes the permission to write away, while reading goes on.
func TestAWriteThatEtcdRefusesIsOneOutage(t *testing.T) {
	t.Parallel()
	h := newHarness(t)
	source, want := fixed(2)
	h.opts.Source, h.opts.ResyncInterval = source, 50*time.Millisecond
	writes, reads := clientv3.PermissionType(clientv3.PermReadWrite), clientv3.PermissionType(clientv3.PermRead)
	grant := func(client *clientv3.Client, prefix string, p clientv3.PermissionType) {
		t.Helper()
		if _, err := client.RoleGrantPermission(ctx10(t), "registrar", prefix, clientv3.GetPrefixRangeEnd(prefix), p); err != nil {
			t.Fatal(err)
		}
	}
	root := h.store
	for _, step := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := root.UserAdd(ctx, "root", "secret"); return err },
		func(ctx context.Context) error { _, err := root.UserGrantRole(ctx, "root", "root"); return err },
		func(ctx context.Context) error { _, err := root.RoleAdd(ctx, "registrar"); return err },
		func(ctx context.Context) error { _, err := root.UserAdd(ctx, "n1", "word"); return err },
		func(ctx context.Context) error { _, err := root.UserGrantRole(ctx, "n1", "registrar"); return err },
	} {
		if err := step(ctx10(t)); err != nil {
			t.Fatal(err)
		}
	}
	grant(root, "/services/", writes)
	grant(root, register.DefaultClaimPrefix, writes)
	if _, err := root.AuthEnable(ctx10(t)); err != nil {
		t.Fatal(err)
	}
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{h.etcd.Endpoint}, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	h.user, h.password, h.store = "n1", "word", root
	h.start()
	h.expect("start", want)
	h.awaitRunning()

	grant(root, "/services/", reads)
	if _, err := root.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	h.awaitLog("etcd answers and refuses the request", "permission denied")
	// Reading works all the while, and does not count as the end of the outage.
	failed := h.value("transactions_total")
	testkit.Eventually(t, within, func() error {
		if s := h.reg.Status(); !strings.Contains(s.Etcd, "permission denied") {
			t.Fatalf("etcd error %q, want the refused write", s.Etcd)
		}
		if n := h.value("transactions_total") - failed; n < 3 {
			return fmt.Errorf("%v more attempts to write, want 3", n)
		}
		return nil
	})
	grant(root, "/services/", writes)
	h.expect("it may write again", want)
	h.awaitRunning()
	h.awaitLog("requests to etcd succeed again")
	if n := strings.Count(h.log.String(), "requests to etcd succeed again"); n != 1 {
		t.Errorf("the end of the outage is logged %d times, want once:\n%s", n, h.log)
	}
}
