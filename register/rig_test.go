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

// within is how long etcd may take to agree with Docker here. The promise is 2 s, which the benchmarks measure;
// a test must not fail because other tests use both cores.
const within = 20 * time.Second

// rig is one registrar with a real etcd and a real Docker. Its labels begin with a word of its own, so that rigs
// can work side by side on one Docker.
type rig struct {
	t      *testing.T
	etcd   *testkit.Etcd
	store  *clientv3.Client
	engine *containers.Engine
	node   string
	word   string
	rules  register.Rules
	opts   register.Options
	docker register.DockerOptions
	log    *recorder

	user, password string // for etcd
	endpoint       string // instead of etcd's own

	reg  *register.Registrar
	stop func() error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return rigOn(t, testkit.StartEtcd(t), "")
}

// rigOn uses an etcd that exists and the Docker at host.
func rigOn(t *testing.T, e *testkit.Etcd, host string) *rig {
	t.Helper()
	word := containers.Name()
	r := &rig{t: t, etcd: e, store: e.Client(), engine: containers.Connect(t, host), node: "n1", word: word, log: &recorder{}}
	r.rules = register.Rules{Node: r.node, LabelPrefix: word + "."}
	r.docker = register.DockerOptions{
		Sweep: time.Hour, // so that what is tested is the event, unless a test says otherwise
		Advertise: func(context.Context) register.Advertise {
			return register.FixedAddress(netip.MustParseAddr(testkit.Host()))
		},
	}
	r.opts = register.Options{Node: r.node, TTL: register.MinTTL, ClaimPrefix: register.DefaultClaimPrefix, Sweep: time.Hour, Leave: true}
	return r
}

// start runs a registrar until stop is called or the test ends.
func (r *rig) start() {
	r.t.Helper()
	reg, run, closeAll := r.make()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx)
		closeAll()
	}()
	r.reg = reg
	var once sync.Once
	var result error
	r.stop = func() error {
		once.Do(func() {
			cancel()
			result = <-done
		})
		return result
	}
	stop := r.stop
	r.t.Cleanup(func() {
		if err := stop(); err != nil && !strings.Contains(err.Error(), "end with their lease") {
			r.t.Errorf("registrar: %v", err)
		}
		if r.t.Failed() {
			r.t.Logf("log of the registrar:\n%s", r.log)
		}
	})
}

func (r *rig) make() (reg *register.Registrar, run func(context.Context) error, closeAll func()) {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(r.log, nil))
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if r.engine.Host != "" {
		opts = append(opts, client.WithHost(r.engine.Host))
	}
	c, err := client.NewClientWithOpts(opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.endpoint == "" {
		r.endpoint = r.etcd.Endpoint
	}
	config := etcd.Config{Endpoints: []string{r.endpoint}, User: r.user}
	if r.user != "" {
		config.PasswordFile = testkit.PasswordFile(r.t, r.password)
	}
	store, err := etcd.Dial(config, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	docker := r.docker
	if docker.API == nil {
		docker.API = register.NewAPI(c)
	}
	docker.Rules, docker.Log = r.rules, log
	o := r.opts
	o.Client, o.Log = store, log
	if o.Source == nil {
		o.Source = register.NewDocker(docker)
	}
	reg, err = register.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return reg, reg.Run, func() {
		_ = store.Close()
		_ = c.Close()
	}
}

// labels puts the rig's prefix before each name: labels("service", "web", "weight", "5").
func (r *rig) labels(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[r.word+"."+pairs[i]] = pairs[i+1]
	}
	return m
}

// web starts a container that serves port 80 as service web.
func (r *rig) web(s containers.Spec) *containers.Container {
	r.t.Helper()
	if s.Labels == nil {
		s.Labels = r.labels("service", "web")
	}
	if s.Publish == nil && s.Network == "" {
		s.Publish = []string{"80"}
	}
	return r.engine.Run(r.t, s)
}

// entry is one record in short: what the tests compare.
type entry struct {
	Addr  string
	State catalog.State
}

func (r *rig) records() map[string]entry {
	r.t.Helper()
	got := map[string]entry{}
	for key, kv := range r.raw() {
		service, name, err := catalog.ParseKey("/services/", key)
		if err != nil {
			r.t.Fatal(err)
		}
		inst, err := catalog.Decode(name, []byte(kv.value))
		if err != nil {
			r.t.Fatalf("record %s: %v", key, err)
		}
		got[service+"/"+name] = entry{inst.Addr(), inst.State}
	}
	return got
}

type raw struct {
	value              string
	mod, create, lease int64
}

func (r *rig) raw() map[string]raw {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := r.store.Get(ctx, "/services/", clientv3.WithPrefix())
	if err != nil {
		r.t.Fatal(err)
	}
	got := map[string]raw{}
	for _, kv := range resp.Kvs {
		got[string(kv.Key)] = raw{string(kv.Value), kv.ModRevision, kv.CreateRevision, kv.Lease}
	}
	return got
}

// expect waits until the store holds exactly these records. The longest waits are logged.
func (r *rig) expect(what string, want map[string]entry) {
	r.t.Helper()
	began := time.Now()
	testkit.Eventually(r.t, within, func() error {
		if diff := cmp.Diff(want, r.records()); diff != "" {
			return fmt.Errorf("%s: records (-want +got):\n%s\n%s", what, diff, r.log)
		}
		return nil
	})
	if took := time.Since(began); took > 500*time.Millisecond {
		r.t.Logf("%s: etcd agreed after %v", what, took)
	}
}

// key is the record of a container as the daemon names it.
func (r *rig) key(service string, c *containers.Container) string {
	return service + "/" + r.node + ":" + c.Name
}

// truth is what Docker says now about running containers, all of service web with port 80.
func (r *rig) truth(state catalog.State, cs ...*containers.Container) map[string]entry {
	r.t.Helper()
	want := map[string]entry{}
	for _, c := range cs {
		want[r.key("web", c)] = entry{c.Addr(80), state}
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

// steady waits until the registrar says that etcd agrees with Docker.
func (r *rig) steady() {
	r.t.Helper()
	testkit.Eventually(r.t, within, func() error {
		if s := r.reg.Status(); s.State != "running" {
			return fmt.Errorf("state %s, docker %q, etcd %q\n%s", s.State, s.Docker, s.Etcd, r.log)
		}
		return nil
	})
}

// logged waits for a line of the log that holds all parts.
func (r *rig) logged(parts ...string) {
	r.t.Helper()
	testkit.Eventually(r.t, within, func() error {
		for line := range strings.Lines(r.log.String()) {
			missing := false
			for _, p := range parts {
				missing = missing || !strings.Contains(line, p)
			}
			if !missing {
				return nil
			}
		}
		return fmt.Errorf("no line of the log holds %q:\n%s", parts, r.log)
	})
}

func (r *rig) revision() int64 {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	resp, err := r.store.Get(ctx, "/")
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.Header.Revision
}

// long says whether the long variants of the tests are wanted.
func long() bool { return os.Getenv("NUNCIO_TEST_LONG") == "1" }

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
