package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"nuncio/internal/cli"
	"nuncio/register"
)

// recordFlags say how records live and end; every command that registers has them.
type recordFlags struct {
	TTL         time.Duration `name:"ttl" default:"15s" help:"How long records outlive a registrar or host that vanished; 5s to 10m."`
	ClaimPrefix string        `default:"/nuncio/registrars/" help:"Where registrars note in etcd which of them serves a node; an empty value turns off the check for a second one."`
}

// daemonFlags are what the daemon and the classic form share.
type daemonFlags struct {
	etcdFlags
	nodeFlags
	dockerFlags
	advertiseFlags
	recordFlags
	adminFlags
	cli.Log
	LabelPrefix    string        `default:"nuncio" help:"Prefix of the labels."`
	StopWindow     time.Duration `default:"5m" help:"How long a container that got its stop signal and lives on stays in drain."`
	ResyncInterval time.Duration `default:"10s" help:"Pause between complete comparisons of Docker and etcd; changes do not wait for it."`
}

// runCmd is the daemon.
type runCmd struct {
	daemonFlags
	All                bool          `help:"Register every container that publishes a TCP port, not only labelled ones."`
	MultiPort          string        `enum:"refuse,suffix" default:"refuse" help:"Containers with several ports and one service name: refuse them, or register NAME-PORT for each (suffix)."`
	ContainerAddresses bool          `help:"Register the containers' own addresses and ports instead of the host's published ones."`
	CopyLabels         []string      `placeholder:"PREFIX" help:"Copy labels with this prefix into the records' meta."`
	OnExit             string        `enum:"keep,remove" default:"keep" help:"On TERM: keep the records until their lease ends, so that a restart is not noticed, or remove them at once."`
	AdminListen        string        `default:"127.0.0.1:9117" help:"Address of /healthz, /readyz, /metrics and /v1/list; read-only; empty for none."`
	Once               bool          `help:"End when etcd agrees with Docker. The records live for one --ttl."`
	DryRun             bool          `help:"Show what would be written, and end."`
	Timeout            time.Duration `default:"30s" help:"How long --once and --dry-run wait for Docker and etcd."`
}

// Run is the daemon.
func (c *runCmd) Run(ctx context.Context, s *streams) error {
	rules := register.Rules{
		All: c.All, MultiPort: c.MultiPort, ContainerAddresses: c.ContainerAddresses, CopyLabels: c.CopyLabels,
	}
	opts := register.Options{Kind: register.KindRun, RemoveOnExit: c.OnExit == "remove", Once: c.Once, DryRun: c.DryRun}
	if !c.Once && !c.DryRun {
		return c.run(ctx, s, c.AdminListen, rules, opts)
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return c.run(ctx, s, "", rules, opts)
}

// classicCmd is docker-register's form.
type classicCmd struct {
	daemonFlags
	Container   string `arg:"" help:"Name of the container. It may be created later, and again."`
	Port        int    `arg:"" help:"Its TCP port, inside the container."`
	Service     string `arg:"" help:"Name of the service."`
	OnExit      string `enum:"keep,remove" default:"remove" help:"On TERM: remove the record at once, or keep it until its lease ends."`
	AdminListen string `placeholder:"ADDR" help:"Address of /healthz, /readyz, /metrics and /v1/list; read-only; none by default."`
}

// Run serves one container.
func (c *classicCmd) Run(ctx context.Context, s *streams) error {
	if c.Port < 1 || c.Port > 65535 {
		return usage("PORT %d: a TCP port from 1 to 65535 is needed", c.Port)
	}
	container := strings.TrimPrefix(c.Container, "/")
	return c.run(ctx, s, c.AdminListen,
		register.Rules{Only: &register.Only{Container: container, Port: c.Port, Service: c.Service}},
		register.Options{Kind: register.KindClassic, Only: [2]string{c.Service, container}, RemoveOnExit: c.OnExit == "remove"})
}

// run connects a registrar to Docker, etcd and its admin listener.
func (c *daemonFlags) run(ctx context.Context, s *streams, admin string, rules register.Rules, opts register.Options) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	log := c.Logger(s.err)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	reg, closeAll, err := c.registrar(s, log, register.NewMetrics(registry), rules, opts)
	if err != nil {
		return err
	}
	defer closeAll()
	started := log.With("version", version, "node", reg.Status().Node, "kind", opts.Kind)
	var listener net.Listener
	if admin != "" {
		if listener, err = net.Listen("tcp", admin); err != nil {
			return cannotStart("--admin-listen: %w", err)
		}
		started = started.With("admin", listener.Addr().String())
	}
	started.Info("registrar starts")
	g, gctx := errgroup.WithContext(ctx)
	adminCtx, stopAdmin := context.WithCancel(gctx)
	g.Go(func() error {
		defer stopAdmin()
		return reg.Run(gctx)
	})
	if listener != nil {
		g.Go(func() error { return serveAdmin(adminCtx, listener, c.AdminHost, reg.Status, registry) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no agreement between Docker and etcd in time: %s", cmp.Or(reg.Status().Problem(), "one of them has not answered yet"))
	}
	if opts.DryRun {
		printChanges(s.out, reg.Status())
	}
	return nil
}

// registrar makes the registrar that the flags describe, and what closes its connections.
func (c *daemonFlags) registrar(s *streams, log *slog.Logger, metrics *register.Metrics, rules register.Rules, opts register.Options) (
	reg *register.Registrar, closeAll func(), err error,
) {
	prefix, err := labelPrefix(c.LabelPrefix)
	if err != nil {
		return nil, nil, usage("%w", err)
	}
	node, err := c.node()
	if err != nil {
		return nil, nil, err
	}
	if c.ResyncInterval <= 0 || c.StopWindow <= 0 {
		return nil, nil, usage("--resync-interval and --stop-window need a duration above zero")
	}
	docker, err := c.docker()
	if err != nil {
		return nil, nil, err
	}
	store, config, err := c.dial(s, log)
	if err != nil {
		return nil, nil, err
	}
	closeAll = func() {
		_ = store.Close()
		_ = docker.Close() // closed connections have nothing to report
	}
	advertise, err := c.advertise(config.Endpoints)
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	rules.Node, rules.LabelPrefix = node, prefix
	opts.Client, opts.Prefix, opts.Node, opts.TTL, opts.ClaimPrefix = store, c.Prefix, node, c.TTL, c.ClaimPrefix
	opts.ResyncInterval, opts.StopWindow, opts.Log, opts.Metrics = c.ResyncInterval, c.StopWindow, log, metrics
	opts.Source = register.NewDocker(register.DockerOptions{
		API: register.NewAPI(docker), Rules: rules, Advertise: advertise, ResyncInterval: c.ResyncInterval,
		StopWindow: c.StopWindow, Log: log, Metrics: metrics,
	})
	if reg, err = register.New(opts); err != nil {
		closeAll()
		return nil, nil, usage("%w", err)
	}
	log.Info("connecting", "etcd", strings.Join(config.Endpoints, ","), "docker", docker.DaemonHost())
	return reg, closeAll, nil
}
