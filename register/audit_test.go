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

	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/testkit"
	"nuncio/register"
)

// counter is the value of a metric without labels.
func counter(t *testing.T, from prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

var rangeTotal = regexp.MustCompile(`(?m)^grpc_server_handled_total\{grpc_code="OK",grpc_method="Range".*\} (\S+)$`)

// ranges is how many reads etcd has answered.
func ranges(t *testing.T, e *testkit.Etcd) float64 {
	t.Helper()
	text, err := testkit.Get(e.Endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	m := rangeTotal.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("etcd's metrics lack %s", rangeTotal)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSweepsOfAnUnchangedStoreFindNoDrift(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(3)
	registry := prometheus.NewRegistry()
	r.opts.Source, r.opts.Sweep, r.opts.Metrics = source, 50*time.Millisecond, register.NewMetrics(registry)
	r.start()
	r.expect("start", want)
	r.steady()
	began := ranges(t, r.etcd)
	testkit.Eventually(t, within, func() error {
		if n := ranges(t, r.etcd) - began; n < 20 {
			return fmt.Errorf("%v comparisons", n)
		}
		return nil
	})
	if n := counter(t, registry, "nuncio_registrar_drift_total"); n != 0 {
		t.Errorf("etcd disagreed %v times with what its watch had told, and nobody changed anything", n)
	}
}

func TestACutConnectionIsForgottenWhenItIsBack(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 3} {
		t.Run(fmt.Sprintf("%d records", n), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			wire := testkit.StartFaultProxy(t, strings.TrimPrefix(r.etcd.Endpoint, "http://"))
			source, want := fixed(n)
			// The lease outlives the cut: taking another one would be a sign of life, too.
			r.opts.TTL, r.opts.Sweep = time.Minute, 100*time.Millisecond
			r.opts.Source, r.endpoint = source, "http://"+wire.Addr
			r.start()
			r.steady()
			wire.Cut()
			testkit.Eventually(t, within, func() error {
				if s := r.reg.Status(); s.Etcd == "" || s.Ready {
					return fmt.Errorf("state %s, ready %t while the connection is cut", s.State, s.Ready)
				}
				return nil
			})
			wire.Join()
			r.steady()
			r.logged("etcd answers again")
			if s := r.reg.Status(); !s.Ready {
				t.Errorf("not ready: %+v", s)
			}
			r.expect("still", want)
		})
	}
}

// silent is a source that has said nothing yet, as Docker when it does not answer.
type silent struct{}

func (silent) Run(ctx context.Context, _ func(register.Published)) error {
	<-ctx.Done()
	return nil
}

// TestADryRunForgetsACutConnectionToo has a registrar that never writes, and so has no write that would be a sign of life.
func TestADryRunForgetsACutConnectionToo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	wire := testkit.StartFaultProxy(t, strings.TrimPrefix(r.etcd.Endpoint, "http://"))
	r.opts.Source, r.opts.DryRun, r.endpoint = silent{}, true, "http://"+wire.Addr
	wire.Cut()
	r.start()
	r.logged("etcd does not answer")
	wire.Join()
	testkit.Eventually(t, within, func() error {
		if s := r.reg.Status(); s.Etcd != "" {
			return errors.New(s.Etcd)
		}
		return nil
	})
}

// TestAWriteThatEtcdRefusesIsOneOutage takes the permission to write away, while reading goes on.
func TestAWriteThatEtcdRefusesIsOneOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	source, want := fixed(2)
	registry := prometheus.NewRegistry()
	r.opts.Source, r.opts.Sweep, r.opts.Metrics = source, 50*time.Millisecond, register.NewMetrics(registry)
	writes, reads := clientv3.PermissionType(clientv3.PermReadWrite), clientv3.PermissionType(clientv3.PermRead)
	grant := func(client *clientv3.Client, prefix string, p clientv3.PermissionType) {
		t.Helper()
		if _, err := client.RoleGrantPermission(ctx10(t), "registrar", prefix, clientv3.GetPrefixRangeEnd(prefix), p); err != nil {
			t.Fatal(err)
		}
	}
	root := r.store
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
	root, err := clientv3.New(clientv3.Config{Endpoints: []string{r.etcd.Endpoint}, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	r.user, r.password, r.store = "n1", "word", root
	r.start()
	r.expect("start", want)
	r.steady()

	grant(root, "/services/", reads)
	if _, err := root.Delete(ctx10(t), "/services/web/i000"); err != nil {
		t.Fatal(err)
	}
	r.logged("etcd does not answer", "permission denied")
	// Reading works all the while: comparisons, and, where somebody's changes come faster than the watch tells of them,
	// whole lists.
	began := ranges(t, r.etcd)
	testkit.Eventually(t, within, func() error {
		for i := range 100 {
			if _, err := root.Put(ctx10(t), fmt.Sprintf("/services/other/%d", i), "192.0.2.9:1"); err != nil {
				return err
			}
		}
		n, lists := ranges(t, r.etcd)-began, counter(t, registry, "nuncio_registrar_drift_total")
		if n < 20 || lists < 3 {
			return fmt.Errorf("%v comparisons, after %v of them a list", n, lists)
		}
		return nil
	})
	if _, err := root.Delete(ctx10(t), "/services/other/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if s := r.reg.Status(); !strings.Contains(s.Etcd, "permission denied") {
		t.Errorf("etcd error %q, want the refused write", s.Etcd)
	}
	grant(root, "/services/", writes)
	r.expect("it may write again", want)
	r.steady()
	r.logged("etcd answers again")
	if n := strings.Count(r.log.String(), "etcd answers again"); n != 1 {
		t.Errorf("the end of the outage is logged %d times, want once:\n%s", n, r.log)
	}
}
