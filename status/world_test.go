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
	"nuncio/status"
)

// world is what the other rooms would publish.
type world struct {
	URL string

	mu       sync.Mutex
	builder  *catalog.Builder
	revision int64
	snap     *catalog.Snapshot
	overview status.Overview

	generations map[int64]haproxy.Files
	wanted      haproxy.Files
	reads       int // of generations
	bell        chan struct{}
}

const (
	first = "global\n\tstats socket x\nbackend web\n\tserver a 192.0.2.7:8080 check\n"
	then  = "global\n\tstats socket x\nbackend web\n\tserver a 192.0.2.7:8080 check\n\tserver b 192.0.2.8:8080 check\n" +
		"\tstats auth admin:hunter2\n"
)

// newWorld starts a Server on a free address. runtime may be nil.
func newWorld(t *testing.T, runtime *haproxy.Socket) *world {
	t.Helper()
	now := time.Now()
	w := &world{builder: catalog.NewBuilder(catalog.BuilderOptions{}), bell: make(chan struct{})}
	w.generations = map[int64]haproxy.Files{1: files(t, first), 2: files(t, then)}
	w.wanted = w.generations[2]
	w.overview = status.Overview{
		Nuncio: "v1.2.3", State: "running", Since: now, Ready: true, InStep: true,
		Applied:   status.Applied{Revision: 7, Generation: 2, Time: now.Add(-12 * time.Second)},
		Desired:   status.Desired{Revision: 7, Digest: "d"},
		Store:     status.Store{Endpoints: []string{"http://root:hunter2@192.0.2.1:2379", "http://192.0.2.2:2379"}, Prefix: "/services/", Synced: true, Revision: 7, LastSync: now},
		Templates: status.Templates{Source: "/etc/nuncio/templates"},
		HAProxy:   status.HAProxy{Version: "2.6.12", MasterPid: 11, WorkerPid: 12, OldWorkers: 1},
		Applies: []status.Apply{
			{Time: now.Add(-time.Hour), Seconds: 0.21, Mode: "start", Result: "started", Revision: 3, Generation: 1, Reason: "no haproxy runs"},
			{Time: now.Add(-time.Minute), Seconds: 0.034, Mode: "reload", Result: "rejected", Revision: 5, Reason: "haproxy -c refuses the files:\n[ALERT] parsing [haproxy.cfg:12]: unknown keyword 'bnid'"},
			{Time: now.Add(-12 * time.Second), Seconds: 0.18, Mode: "reload", Result: "reloaded", Revision: 7, Generation: 2, Previous: 1, Reason: "the files differ"},
		},
	}
	w.publish()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.URL = "http://" + l.Addr().String()
	server := status.New(status.Options{
		Report:   func() status.Report { return status.Report{State: "running", Ready: true} },
		Gatherer: prometheus.NewRegistry(), Overview: w.getOverview, Snapshot: w.getSnapshot, Changed: w.changed, Runtime: runtime,
		Generations: func() ([]status.Generation, error) {
			return []status.Generation{{Number: 1, Revision: 3, Created: now.Add(-time.Hour)}, {Number: 2, Revision: 7, Created: now, Current: true}}, nil
		},
		Files:  w.getFiles,
		Wanted: w.getWanted,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

func files(t *testing.T, text string) haproxy.Files {
	t.Helper()
	f, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (w *world) getFiles(n int64) (haproxy.Files, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	f, ok := w.generations[n]
	if !ok {
		return haproxy.Files{}, errors.New("there is none")
	}
	return f, nil
}

func (w *world) getWanted() (haproxy.Files, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.wanted, nil
}

func (w *world) getOverview() status.Overview {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.overview
}

func (w *world) getSnapshot() *catalog.Snapshot {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snap
}

func (w *world) changed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bell
}

// put writes pairs of service/instance and record, and publishes them.
func (w *world) put(pairs ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := 0; i < len(pairs); i += 2 {
		w.builder.Put("/services/"+pairs[i], []byte(pairs[i+1]))
	}
	w.publishLocked()
}

func (w *world) publish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.publishLocked()
}

func (w *world) publishLocked() {
	w.revision++
	w.snap = w.builder.Snapshot(w.revision)
	close(w.bell)
	w.bell = make(chan struct{})
}

func (w *world) change(f func(*status.Overview)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f(&w.overview)
	w.publishLocked()
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
	testkit.HAProxies(t)[0].Start(t, dir, front)
	socket := haproxy.RuntimeSocket(path, 5*time.Second)
	return &socket
}
