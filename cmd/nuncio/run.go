package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"nuncio/internal/catalog"
	"nuncio/internal/cli"
	"nuncio/internal/etcd"
	"nuncio/internal/etcd/embedded"
	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/render"
	"nuncio/status"
	"nuncio/templates"
	"nuncio/watch"
)

type runCmd struct {
	etcdFlags
	templateFlags
	cli.Log
	EmbeddedEtcd       string        `placeholder:"DIR" help:"Run an etcd server in this process, with its data in DIR: a store for a single machine, instead of --etcd-endpoints."`
	EmbeddedEtcdListen string        `default:"127.0.0.1:2379" help:"Address of the embedded etcd for its clients, such as a registrar."`
	StateDir           string        `default:"/var/lib/nuncio" help:"Directory of generations, template sets and HAProxy's sockets."`
	HAProxy            string        `name:"haproxy" default:"haproxy" help:"HAProxy program to run."`
	AdminListen        string        `default:"127.0.0.1:8404" help:"Address of the status page, /healthz, /readyz and /metrics; read-only."`
	AdminHost          []string      `placeholder:"NAME" help:"Host names of --admin-listen, besides localhost and IP addresses; requests for other names are refused. If not set, every name is accepted unless the listener is on loopback."`
	ReloadInterval     time.Duration `default:"1s" help:"Least time between two reloads of HAProxy; changes that need one are gathered meanwhile. Changes of servers never wait for it."`
	ShrinkHold         time.Duration `default:"60s" help:"How long to hold instances in HAProxy if more than half of ten or more, or all of them, vanish from etcd at once, and keys of --keys that vanish so; 0 turns this off (see docs/reliability.md)."`
	MaxRecords         int           `default:"20000" help:"Limit of the keys read from etcd, which protects memory; the newest beyond it are quarantined."`
	StartJitter        time.Duration `default:"0s" help:"Wait for a random time up to this before etcd is asked for the first time, so that many proxies that start together do not list everything together; meanwhile the last good configuration serves (see --start-wait)."`
	StartWait          time.Duration `default:"3s" help:"How long to wait for etcd before starting the last good configuration without it."`
	DrainTimeout       time.Duration `default:"25s" help:"How long requests in progress may take after TERM; keep it shorter than the container's grace time."`
	KeepGenerations    int           `default:"10" help:"How many of the newest generations to keep on disk; see docs/operations.md for the others that are kept."`
	KeepTemplateSets   int           `default:"20" help:"How many template sets to keep on disk for nuncio rollback."`

	Try bool `hidden:"" help:"Build everything from the settings, start nothing, print the version and exit."` // see tryProgram

	compare time.Duration // between comparisons with etcd; 0 means watch.DefaultCompare; only tests set it
}

// daemon is everything that runs at the same time.
type daemon struct {
	log      *slog.Logger
	registry *prometheus.Registry
	store    *watch.Store
	dir      *watch.Dir // nil with the shipped templates
	outside  *watch.Files
	manager  *reload.Manager
	reaper   *proc.Reaper
	admin    net.Listener
	embedded *embedded.Server // nil without --embedded-etcd
	streams  *streams
	next     atomic.Pointer[successor] // not nil once an upgrade has begun
	ending   atomic.Bool               // TERM or INT has come

	reconciler *reconcile.Reconciler
}

// Run is the entrypoint of the HAProxy container. It returns after a signal, or when it cannot continue.
func (c *runCmd) Run(ctx context.Context, s *streams) error {
	log := c.Logger(patient(s.err))
	if c.EmbeddedEtcd != "" && len(c.EtcdEndpoints) > 0 {
		return &exitError{exitUsage, fmt.Errorf("--embedded-etcd and --etcd-endpoints are two stores: give only one of them")}
	}
	var server *embedded.Server
	if c.EmbeddedEtcd != "" && !c.Try {
		var err error
		server, err = embedded.Start(ctx, embedded.Options{Dir: c.EmbeddedEtcd, ClientURL: "http://" + c.EmbeddedEtcdListen, Logger: log})
		if err != nil {
			return cannotStart("%w", err)
		}
		defer server.Close()
		c.EtcdEndpoints = []string{server.Endpoint()}
	}
	notes, err := c.settle(&c.etcdFlags, s)
	if err != nil {
		return err
	}
	for _, note := range notes {
		log.Info("confd", "note", note)
	}
	config := c.config()
	if err := config.Validate(); err != nil {
		return cannotStart("%w", err)
	}
	client, err := etcd.Dial(config, log)
	if err != nil {
		return cannotStart("%w", err)
	}
	defer client.Close()
	d, err := c.build(log, client, s)
	if err != nil {
		return err
	}
	if c.Try {
		_, err := io.WriteString(s.out, tried+version+"\n")
		return err
	}
	d.embedded = server
	log.Info("nuncio starts", "version", version, "etcd", strings.Join(config.Endpoints, ","), "prefix", c.Prefix, "admin", d.admin.Addr().String())
	err = d.run(c)
	if d.manager.HandedOver() && d.ending.Load() { // TERM came a moment too late for a drain
		return (&stopCmd{runningFlags: runningFlags{c.StateDir}, Log: c.Log, HAProxy: c.HAProxy, DrainTimeout: c.DrainTimeout}).Run(ctx, s)
	}
	return err
}

// build creates every part and tries what it can before anything runs, so that an unusable setting is one clear error
// at the start.
func (c *runCmd) build(log *slog.Logger, client *clientv3.Client, s *streams) (*daemon, error) {
	d := &daemon{log: log, streams: s, registry: prometheus.NewRegistry(), reaper: proc.NewReaper(proc.Options{Logger: log})}
	d.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	// Templates that cannot be parsed are reported while running, and waited for. They may come to ask for a setting later.
	_, err := c.parsedTemplates(s)
	switch code := exitCode(err); {
	case err != nil && code == exitUsage:
		log.Warn("a setting changes nothing", "err", err)
	case err != nil && code != exitRefused:
		return nil, err
	}
	if o := c.dirOptions(); o.Dir != "" {
		o.Logger = log
		d.dir = watch.NewDir(o)
	}
	own := []string{c.AdminListen}
	if c.EmbeddedEtcd != "" {
		own = append(own, c.EmbeddedEtcdListen)
	}
	d.store, err = watch.NewStore(watch.StoreOptions{
		Client: client, Prefix: c.Prefix, NoRecords: c.Prefix == "", Keys: c.Keys, Select: c.Select, Compare: c.compare, StartJitter: c.StartJitter, Logger: log, Registerer: d.registry,
		Limits: catalog.Limits{Keys: c.MaxRecords}, Refuse: watch.RefuseOwnListeners(own...),
	})
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	d.manager, err = reload.New(reload.Options{
		HAProxy: c.HAProxy, StateDir: c.StateDir, Keep: c.KeepGenerations, StartWait: c.StartWait, DrainTimeout: c.DrainTimeout,
		Procs: d.reaper, Logger: log, HAProxyLogger: log.With("program", "haproxy"), AccessLog: accessLog(s.out), Registerer: d.registry,
	})
	if err != nil {
		return nil, cannotStart("%w", err)
	}
	d.outside = watch.NewFiles(watch.FilesOptions{Logger: log})
	d.reconciler, err = reconcile.New(reconcile.Options{
		Applier: d.manager, Outside: d.outside, Render: c.renderRunning(s), ShrinkHold: c.ShrinkHold, StateDir: c.StateDir, Prefix: c.Prefix, Select: c.Select,
		ReloadInterval: c.ReloadInterval, KeepTemplateSets: c.KeepTemplateSets, Logger: log, Registerer: d.registry,
	})
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	if c.Try { // the nuncio that runs has the address
		return d, nil
	}
	if d.admin, err = listen(c.AdminListen); err != nil {
		return nil, cannotStart("--admin-listen: %w", err)
	}
	return d, nil
}

// renderRunning keeps values away from the sockets of this nuncio.
func (c *runCmd) renderRunning(s *streams) render.Options {
	o := c.renderOptions(s)
	o.Private = c.StateDir
	return o
}

// run owns every goroutine of the daemon. The store, the templates and the admin listener end with the signal; HAProxy
// drains for as long as it is allowed to.
func (d *daemon) run(c *runCmd) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR2)
	defer signal.Stop(signals)

	snapshots := make(chan *catalog.Snapshot)
	trees := make(chan map[string]string)
	reaping, stopReaping := context.WithCancel(context.Background())
	adminCtx, stopAdmin := context.WithCancel(context.Background())
	group.Go(func() error {
		if err := d.reaper.Run(reaping); err != nil { // zombies are a smaller evil than HAProxy's end
			d.log.Error("orphans are not reaped", "err", err)
		}
		return nil
	})
	group.Go(func() error { return d.store.Run(ctx, snapshots) })
	group.Go(func() error { return d.readTemplates(ctx, trees) })
	group.Go(func() error { return d.outside.Run(ctx) })
	group.Go(func() error { return d.reconciler.Run(ctx, snapshots, trees) })
	shown := d.statusServer(c)
	group.Go(func() error { return shown.Run(adminCtx, d.admin) })
	group.Go(func() error { return d.serveSocket(adminCtx, c, shown) })
	group.Go(func() error {
		// Readiness must be seen to go while HAProxy drains, and orphans come until it is gone.
		defer stopReaping()
		defer stopAdmin()
		defer stop()
		return d.manager.Run(ctx)
	})
	if d.embedded != nil {
		group.Go(func() error {
			if err := d.embedded.Wait(ctx); err != nil {
				// What is left of it ends with the process only. A new start fails while the disk is full, so it is an operator's decision.
				d.log.Error("embedded etcd ended, traffic goes on as it is; once the cause is gone: nuncio upgrade", "err", err)
				shown.SetProblem("store", fmt.Errorf("%w; records cannot change until nuncio is restarted; once the cause is gone, "+
					"nuncio upgrade does that without touching HAProxy", err))
			}
			return nil
		})
	}
	group.Go(func() error { return d.obey(reaping, signals, stop) })
	group.Go(func() error { return notifySystemd(ctx, reaping, shown.Health, d.manager.HandedOver, d.log) })
	err := group.Wait()
	if err == nil && d.manager.HandedOver() {
		return d.next.Load() // everything that has to be closed is closed on the way up
	}
	return err
}

// socketPath is where the control socket of a state directory is.
func socketPath(stateDir string) string { return filepath.Join(stateDir, "run", "nuncio.sock") }

// statusServer shows what the parts of the daemon report, and takes orders for them.
func (d *daemon) statusServer(c *runCmd) *status.Server {
	runtime := haproxy.RuntimeSocket(filepath.Join(c.StateDir, "run", "runtime.sock"), 5*time.Second)
	return status.New(status.Options{
		Version: version, Prefix: c.Prefix, Templates: c.dirOptions().Dir, Registry: d.registry, Hosts: c.AdminHost, Logger: d.log,
		Applier: d.manager, Reconciler: d.reconciler, Store: d.store, Runtime: runtime, Disk: status.StateDir(c.StateDir),
		Upgrade: d.upgrade,
	})
}

// serveSocket opens the control socket once the manager has made its directory, and so holds the lock on it.
func (d *daemon) serveSocket(ctx context.Context, c *runCmd, server *status.Server) error {
	for {
		changed := d.manager.Changed()
		if d.manager.Status().Version != "" {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	if err := server.RunSocket(ctx, socketPath(c.StateDir)); err != nil {
		// Serving traffic matters more than taking orders.
		d.log.Error("control socket unavailable", "err", err)
	}
	return nil
}

// listen opens the admin listener. Children of a killed nuncio may hold the address for a moment longer than nuncio itself,
// and a start right after that must not fail.
func listen(addr string) (net.Listener, error) {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		l, err := net.Listen("tcp", addr)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

// readTemplates delivers the shipped templates once, or the operator's whenever they change.
func (d *daemon) readTemplates(ctx context.Context, trees chan<- map[string]string) error {
	if d.dir != nil {
		return d.dir.Run(ctx, trees)
	}
	select {
	case trees <- templates.Shipped():
	case <-ctx.Done():
	}
	return nil
}

// obey turns signals into calls until HAProxy is gone: the first TERM or INT drains, the second stops now, HUP reads the
// templates and the certificates again, USR2 accepts what the shrink guard holds.
func (d *daemon) obey(over context.Context, signals <-chan os.Signal, stop func()) error {
	asked := false
	for {
		select {
		case <-over.Done():
			return nil
		case s := <-signals:
			d.log.Info("signal", "signal", s.String())
			switch {
			case s == syscall.SIGHUP:
				if d.dir != nil {
					d.dir.Refresh()
				}
				d.outside.Refresh()
				d.reconciler.Retry()
			case s == syscall.SIGUSR2:
				go d.accept(over) // an apply may be under way, and the next signal must not wait for it
			case asked:
				d.manager.StopNow()
			default:
				asked = true
				d.ending.Store(true)
				stop()
			}
		}
	}
}

func (d *daemon) accept(ctx context.Context) {
	if held, err := d.reconciler.Accept(ctx); err == nil && !held {
		d.log.Info("the shrink guard holds nothing")
	}
}

func buildInfo() prometheus.Collector {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "nuncio_build_info", Help: "Always 1; the label tells the version."}, []string{"version"})
	g.WithLabelValues(version).Set(1)
	return g
}
