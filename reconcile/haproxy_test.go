package reconcile_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/testkit"
	"nuncio/reconcile"
	"nuncio/reload"
)

// setup is a Reconciler with a real Manager and a real HAProxy.
type setup struct {
	*testing.T
	manager    *reload.Manager
	reconciler *reconcile.Reconciler
	dir        string
	snapshots  chan *catalog.Snapshot
	trees      chan map[string]string
}

func startLive(t *testing.T) *setup { return startLiveWith(t, reconcile.Options{}) }

func startLiveWith(t *testing.T, opts reconcile.Options) *setup {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // short: it holds unix sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m, err := reload.New(reload.Options{HAProxy: testkit.OneHAProxy(t).Path, StateDir: dir, DrainTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	opts.Applier, opts.StateDir = m, dir
	r, err := reconcile.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	l := &setup{t, m, r, dir, make(chan *catalog.Snapshot), make(chan map[string]string)}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- m.Run(ctx) }()
	go func() { ended <- r.Run(ctx, l.snapshots, l.trees) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("ended with %v", err)
			}
		}
	})
	return l
}

// edit delivers templates that show a page and the number of instances on some addresses.
func (l *setup) edit(page string, binds ...string) {
	text := "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\nfrontend f\n" +
		" http-request return status 200 content-type text/plain string " + page + "-{{len .Services}}\n"
	for _, b := range binds {
		text += " bind " + b + "\n"
	}
	l.trees <- map[string]string{"haproxy.cfg.tmpl": text}
}

func (l *setup) services(names ...string) {
	builder := catalog.NewBuilder(catalog.BuilderOptions{})
	for _, name := range names {
		builder.Put("/services/"+name+"/i", []byte("192.0.2.1:80"))
	}
	l.snapshots <- builder.Snapshot(int64(len(names)))
}

func (l *setup) wantPage(addr, want string) {
	l.Helper()
	testkit.Eventually(l.T, 30*time.Second, func() error {
		got, err := testkit.Get("http://" + addr + "/")
		if err == nil && got != want {
			err = fmt.Errorf("page %q, want %q: %s", got, want, l.manager.Status().LastError)
		}
		return err
	})
}

func TestRollbackAndFreezeWithHAProxy(t *testing.T) {
	l := startLive(t)
	addr, other := testkit.FreeAddr(t), testkit.FreeAddr(t)
	l.services("a")
	l.edit("one", addr, other)
	l.wantPage(addr, "one-1")
	l.edit("two", addr)
	l.wantPage(addr, "two-1")
	l.edit("three", addr)
	l.wantPage(addr, "three-1")
	l.services("a", "b")
	if set, err := l.reconciler.Rollback(t.Context(), 0); err != nil || set.Number != 2 {
		t.Fatalf("Rollback: %+v, %v", set, err)
	}
	l.wantPage(addr, "two-2")

	// HAProxy's old worker gives the address up a moment after the reload.
	var listener net.Listener
	testkit.Eventually(t, 20*time.Second, func() (err error) {
		listener, err = net.Listen("tcp", other)
		return err
	})
	if _, err := l.reconciler.Rollback(t.Context(), 1); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("Rollback to a set whose address is in use: %v, want an error that names %s", err, other)
	}
	l.wantPage(addr, "two-2")
	if got := l.reconciler.Status(); got.State != reconcile.StateRolledBack || got.RolledBack.TemplateSet != 2 {
		t.Errorf("after a rollback that did not work: %s, %+v; want set 2 still", got.State, got.RolledBack)
	}
	if _, err := l.reconciler.Freeze(t.Context(), 1); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("Freeze of a generation whose address is in use: %v, want an error that names %s", err, other)
	}
	listener.Close()
	if frozen, err := l.reconciler.Freeze(t.Context(), 1); err != nil || frozen.Generation != 1 || frozen.TemplateSet != 1 {
		t.Errorf("Freeze: %+v, %v; want generation 1, which set 1 rendered", frozen, err)
	}
	l.wantPage(other, "one-1")
	if _, err := l.reconciler.Resume(t.Context()); err != nil {
		t.Error(err)
	}
	l.wantPage(addr, "three-2")
}
