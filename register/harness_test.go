package register_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
	"nuncio/internal/testkit"
	"nuncio/internal/testkit/containers"
	"nuncio/register"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(mainFunc(func() int { return containers.Main(m.Run) }))
}

type mainFunc func() int

func (f mainFunc) Run() int { return f() }

// shortTTL is the time to live of records here. A registrar that meets another one's claim needs register.MinTTL: etcd
// counts a lease in whole seconds, and a renewal would not show in 2 of them.
const shortTTL = 2 * time.Second

// within is how long etcd may take to agree with Docker here. The promise is 2 s, which the benchmarks measure;
// a test must not fail because the machine is busy.
const within = 20 * time.Second

// harness is one registrar with a real etcd and a real Docker. Its labels begin with a word of its own, so that several
// harnesses can share one Docker.
type harness struct {
	t      *testing.T
	etcd   *testkit.Etcd
	store  *clientv3.Client
	engine *containers.Engine
	node   string
	// labelPrefix is the word that the labels of this harness begin with.
	labelPrefix string
	rules       register.Rules
	opts        register.Options
	docker      register.DockerOptions
	log         *recorder
	metrics     *prometheus.Registry
	wrapKV      func(clientv3.KV) clientv3.KV // of the registrar's client; nil for none

	user, password string // for etcd
	endpoint       string // instead of etcd's own

	reg  *register.Registrar
	stop func() error
}

func newHarness(t *testing.T) *harness {
	t.Helper()
	return harnessOn(t, testkit.StartEtcd(t), "")
}

// harnessOn uses an etcd that exists and the Docker at host.
func harnessOn(t *testing.T, e *testkit.Etcd, host string) *harness {
	t.Helper()
	word := containers.Name()
	h := &harness{t: t, etcd: e, store: e.Client(), engine: containers.Connect(t, host), node: "n1", labelPrefix: word, log: &recorder{}, metrics: prometheus.NewRegistry()}
	h.rules = register.Rules{Node: h.node, LabelPrefix: word + "."}
	h.docker = register.DockerOptions{
		ResyncInterval: time.Hour, // so that what is tested is the event, unless a test says otherwise
		Advertise: func(context.Context) register.Advertise {
			return register.FixedAddress(netip.MustParseAddr(testkit.Host()))
		},
	}
	h.opts = register.Options{
		Node: h.node, TTL: shortTTL, ClaimPrefix: register.DefaultClaimPrefix, ResyncInterval: time.Hour, RemoveOnExit: true,
		Metrics: register.NewMetrics(h.metrics),
	}
	h.opts.AllowTTL(shortTTL)
	return h
}

// start runs a registrar until stop is called or the test ends.
func (h *harness) start() {
	h.t.Helper()
	reg, run, closeAll := h.make()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx)
		closeAll()
	}()
	h.reg = reg
	var once sync.Once
	var result error
	h.stop = func() error {
		once.Do(func() {
			cancel()
			result = <-done
		})
		return result
	}
	stop := h.stop
	h.t.Cleanup(func() {
		if err := stop(); err != nil && !strings.Contains(err.Error(), "end with their lease") {
			h.t.Errorf("registrar: %v", err)
		}
		if h.t.Failed() {
			h.t.Logf("log of the registrar:\n%s", h.log)
		}
	})
}

func (h *harness) make() (reg *register.Registrar, run func(context.Context) error, closeAll func()) {
	h.t.Helper()
	log := slog.New(slog.NewTextHandler(h.log, nil))
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if h.engine.Host != "" {
		opts = append(opts, client.WithHost(h.engine.Host))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.endpoint == "" {
		h.endpoint = h.etcd.Endpoint
	}
	config := etcd.Config{Endpoints: []string{h.endpoint}, User: h.user}
	if h.user != "" {
		config.PasswordFile = testkit.PasswordFile(h.t, h.password)
	}
	store, err := etcd.Dial(config, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.wrapKV != nil {
		store.KV = h.wrapKV(store.KV)
	}
	docker := h.docker
	if docker.API == nil {
		docker.API = register.NewAPI(c)
	}
	docker.Rules, docker.Log, docker.Metrics = h.rules, log, h.opts.Metrics
	o := h.opts
	o.Client, o.Log = store, log
	if o.Source == nil {
		o.Source = register.NewDocker(docker)
	}
	reg, err = register.New(o)
	if err != nil {
		h.t.Fatal(err)
	}
	return reg, reg.Run, func() {
		_ = store.Close()
		_ = c.Close()
	}
}

// labels puts the harness's prefix before each name: labels("service", "web", "weight", "5").
func (h *harness) labels(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[h.labelPrefix+"."+pairs[i]] = pairs[i+1]
	}
	return m
}

// web starts a container that serves port 80 as service web.
func (h *harness) web(s containers.Spec) *containers.Container {
	h.t.Helper()
	if s.Labels == nil {
		s.Labels = h.labels("service", "web")
	}
	if s.Publish == nil && s.Network == "" {
		s.Publish = []string{"80"}
	}
	return h.engine.Run(h.t, s)
}

// entry is one record in short: what the tests compare.
type entry struct {
	Addr  string
	State catalog.State
}

func (h *harness) records() map[string]entry {
	h.t.Helper()
	got := map[string]entry{}
	for key, kv := range h.raw() {
		service, name, err := catalog.ParseKey("/services/", key)
		if err != nil {
			h.t.Fatal(err)
		}
		inst, err := catalog.Decode(name, []byte(kv.value))
		if err != nil {
			h.t.Fatalf("record %s: %v", key, err)
		}
		got[service+"/"+name] = entry{inst.Addr(), inst.State}
	}
	return got
}

type raw struct {
	value              string
	mod, create, lease int64
}

func (h *harness) raw() map[string]raw {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := h.store.Get(ctx, "/services/", clientv3.WithPrefix())
	if err != nil {
		h.t.Fatal(err)
	}
	got := map[string]raw{}
	for _, kv := range resp.Kvs {
		got[string(kv.Key)] = raw{string(kv.Value), kv.ModRevision, kv.CreateRevision, kv.Lease}
	}
	return got
}

// expect waits until the store holds exactly these records. The longest waits are logged.
func (h *harness) expect(what string, want map[string]entry) {
	h.t.Helper()
	began := time.Now()
	testkit.Eventually(h.t, within, func() error {
		if diff := cmp.Diff(want, h.records()); diff != "" {
			return fmt.Errorf("%s: records (-want +got):\n%s\n%s", what, diff, h.log)
		}
		return nil
	})
	if took := time.Since(began); took > 500*time.Millisecond {
		h.t.Logf("%s: etcd agreed after %v", what, took)
	}
}

// key is the record of a container as the daemon names it.
func (h *harness) key(service string, c *containers.Container) string {
	return service + "/" + h.node + ":" + c.Name
}

// recordsOf returns the records that belong to running containers as Docker describes them now, all of service web with port 80.
func (h *harness) recordsOf(state catalog.State, cs ...*containers.Container) map[string]entry {
	h.t.Helper()
	want := map[string]entry{}
	for _, c := range cs {
		want[h.key("web", c)] = entry{c.Addr(80), state}
	}
	return want
}

func merge(ms ...map[string]entry) map[string]entry {
	all := map[string]entry{}
	for _, m := range ms {
		maps.Copy(all, m)
	}
	return all
}

// awaitRunning waits until the registrar says that etcd agrees with Docker.
func (h *harness) awaitRunning() {
	h.t.Helper()
	testkit.Eventually(h.t, within, func() error {
		if s := h.reg.Status(); s.State != "running" {
			return fmt.Errorf("state %s, docker %q, etcd %q\n%s", s.State, s.Docker, s.Etcd, h.log)
		}
		return nil
	})
}

// awaitLog waits for a line of the log that holds all parts.
func (h *harness) awaitLog(parts ...string) {
	h.t.Helper()
	testkit.Eventually(h.t, within, func() error {
		for line := range strings.Lines(h.log.String()) {
			missing := false
			for _, p := range parts {
				missing = missing || !strings.Contains(line, p)
			}
			if !missing {
				return nil
			}
		}
		return fmt.Errorf("no line of the log holds %q:\n%s", parts, h.log)
	})
}

// value returns the sum of a metric of the registrar over its labels.
func (h *harness) value(name string) float64 {
	h.t.Helper()
	families, err := h.metrics.Gather()
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != "nuncio_registrar_"+name {
			continue
		}
		sum := 0.0
		for _, m := range f.GetMetric() {
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
		return sum
	}
	return 0
}

// awaitValue waits until a metric of the registrar is at least n.
func (h *harness) awaitValue(name string, n float64) {
	h.t.Helper()
	testkit.Eventually(h.t, within, func() error {
		if got := h.value(name); got < n {
			return fmt.Errorf("%s is %v, want %v\n%s", name, got, n, h.log)
		}
		return nil
	})
}

// awaitRenewal waits until the lease was renewed when it would have ended without a renewal since now.
func (h *harness) awaitRenewal() {
	h.t.Helper()
	h.awaitValue("lease_kept_alive_timestamp_seconds", float64(time.Now().Add(h.opts.TTL).UnixNano())/1e9)
}

func (h *harness) revision() int64 {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := h.store.Get(ctx, "/")
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.Header.Revision
}

// longTests reports whether the long variants of the tests are to run.
func longTests() bool { return os.Getenv("NUNCIO_TEST_LONG") == "1" }

type recorder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}
