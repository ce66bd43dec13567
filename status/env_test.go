package status_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/status"
	"nuncio/watch"
)

// env is a Server whose sources a test changes as it likes.
type env struct {
	URL    string
	Server *status.Server

	mu       sync.Mutex
	builder  *catalog.Builder
	revision int64
	sources  sources
	asked    int // times that a document was made
	reads    int // of generations
	changed  chan struct{}
}

// sources is what the parts of nuncio say about themselves.
type sources struct {
	applier     reload.Status
	reconciler  reconcile.Status
	store       watch.StoreStatus
	desired     haproxy.Files
	known       bool
	generations map[int64]haproxy.Files
	rollback    func(context.Context) error
}

const (
	frontend = "frontend f\n\tuse_backend %[req.hdr(x)]\n" // what it leads to is not in the files
	first    = frontend + "global\n\tstats socket x\nbackend web\n\tserver a 192.0.2.7:8080 check\n"
	then     = frontend + "global\n\tstats socket x\nbackend web\n\tserver a 192.0.2.7:8080 check\n\tserver b 192.0.2.8:8080 check\n" +
		"\tstats auth admin:hunter2\n"
)

// newEnv starts a Server on a free address. If runtime is nil, there is no HAProxy to ask.
func newEnv(t *testing.T, runtime *haproxy.Socket) *env {
	t.Helper()
	now := time.Now()
	e := &env{builder: catalog.NewBuilder(catalog.BuilderOptions{Prefix: "/services/"}), changed: make(chan struct{})}
	running := files(t, then)
	e.sources = sources{
		applier: reload.Status{
			State: reload.Running, Since: now, Ready: true,
			AppliedRevision: 7, AppliedGeneration: 2, AppliedDigest: running.Digest(), AppliedTime: now.Add(-12 * time.Second), DesiredRevision: 7,
			Version: "2.6.12", MasterPid: 11, WorkerPid: 12, OldWorkers: 1,
			Applies: []reload.Result{
				{Time: now.Add(-time.Hour), Duration: 210 * time.Millisecond, Mode: "start", Outcome: "started", Revision: 3, Generation: 1, Reason: "no haproxy runs"},
				{Time: now.Add(-time.Minute), Duration: 34 * time.Millisecond, Mode: "reload", Outcome: "rejected", Revision: 5, Reason: "haproxy -c refuses the files:\n[ALERT] parsing [haproxy.cfg:12]: unknown keyword 'bnid'"},
				{Time: now.Add(-12 * time.Second), Duration: 180 * time.Millisecond, Mode: "reload", Outcome: "reloaded", Revision: 7, Generation: 2, Reason: "the files differ"},
			},
		},
		store:       watch.StoreStatus{Endpoints: []string{"http://root:hunter2@192.0.2.1:2379", "http://192.0.2.2:2379"}, Synced: true, Revision: 7, LastSync: now},
		generations: map[int64]haproxy.Files{1: files(t, first), 2: running},
		desired:     running, known: true,
	}
	e.change(func(*sources) {})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e.URL = "http://" + l.Addr().String()
	e.Server = status.New(e.options(runtime))
	serve(t, e.Server, l)
	return e
}

func (e *env) options(runtime *haproxy.Socket) status.Options {
	if runtime == nil {
		runtime = &haproxy.Socket{}
	}
	return status.Options{
		Version: "v1.2.3", Prefix: "/services/", Templates: "/etc/nuncio/templates", Registry: prometheus.NewRegistry(),
		Applier: applier{e}, Reconciler: reconciler{e}, Store: store{e}, Runtime: *runtime,
		Disk: disk{e},
	}
}

// serve runs a Server on l until the test ends.
func serve(t *testing.T, server *status.Server, l net.Listener) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func files(t *testing.T, text string) haproxy.Files {
	t.Helper()
	f, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

type (
	applier    struct{ *env }
	reconciler struct{ *env }
	store      struct{ *env }
	disk       struct{ *env }
)

func (a applier) Status() reload.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	return a.sources.applier
}

func (a applier) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

func (r reconciler) Status() reconcile.Status       { return r.get().reconciler }
func (r reconciler) Changed() <-chan struct{}       { return applier(r).Changed() }
func (r reconciler) Desired() (haproxy.Files, bool) { s := r.get(); return s.desired, s.known }

func (r reconciler) Accept(context.Context) (bool, error) { return true, nil }

func (r reconciler) Rollback(ctx context.Context, set int64) (reconcile.TemplateSet, error) {
	if f := r.get().rollback; f != nil {
		return reconcile.TemplateSet{}, f(ctx)
	}
	return reconcile.TemplateSet{Number: set}, nil
}

func (r reconciler) Freeze(_ context.Context, generation int64) (reconcile.Frozen, error) {
	return reconcile.Frozen{Generation: generation}, nil
}

func (r reconciler) Resume(context.Context) (reconcile.Resumed, error) {
	return reconcile.Resumed{}, reconcile.ErrNothingToResume
}

func (s store) Status() watch.StoreStatus { return s.get().store }

func (e *env) get() sources {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sources
}

func (d disk) Files(n int64) (haproxy.Files, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads++
	f, ok := d.sources.generations[n]
	if !ok {
		return haproxy.Files{}, errors.New("there is none")
	}
	return f, nil
}

func (d disk) Generations() ([]reload.Generation, error) {
	now := time.Now()
	return []reload.Generation{
		{Number: 1, Revision: 3, Created: now.Add(-time.Hour), Kind: reload.KindStart, TemplateSet: 1},
		{Number: 2, Revision: 7, Created: now, Kind: reload.KindReload, TemplateSet: 1, Current: true},
	}, nil
}

func (d disk) TemplateSets() ([]reconcile.TemplateSet, error) {
	return []reconcile.TemplateSet{{Number: 1, FirstRun: time.Now().Add(-time.Hour)}}, nil
}

// put writes pairs of service/instance and record, and publishes them.
func (e *env) put(pairs ...string) {
	e.change(func(*sources) {
		for i := 0; i < len(pairs); i += 2 {
			e.builder.Put("/services/"+pairs[i], []byte(pairs[i+1]))
		}
	})
}

// change changes the sources and publishes them with a new snapshot.
func (e *env) change(f func(*sources)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.sources)
	e.revision++
	e.sources.reconciler.Snapshot = e.builder.Snapshot(e.revision)
	close(e.changed)
	e.changed = make(chan struct{})
}

// runHAProxy runs a configuration with these backends, and returns its Runtime API.
func runHAProxy(t *testing.T, backends string) *haproxy.Socket {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	front, path := testkit.FreeAddr(t), filepath.Join(dir, "s")
	config := fmt.Sprintf("global\n\tstats socket %s level admin\ndefaults\n\ttimeout connect 1s\n\ttimeout client 1s\n\ttimeout server 1s\nfrontend f\n\tbind %s\n%s",
		path, front, strings.ReplaceAll(backends, "$FRONT", front))
	if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.OneHAProxy(t).Start(t, dir, front)
	socket := haproxy.RuntimeSocket(path, 5*time.Second)
	// HAProxy listens for its clients a little before it does on its own socket.
	testkit.Eventually(t, 20*time.Second, func() error {
		_, err := socket.Exec(t.Context(), haproxy.ShowStat)
		return err
	})
	return &socket
}
