package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// keepFlags say how records live and end; all commands that register have them.
type keepFlags struct {
	TTL         time.Duration `name:"ttl" default:"15s" help:"How long records outlive a registrar or host that vanished; 5s to 10m."`
	ClaimPrefix string        `default:"/nuncio/registrars/" help:"Where registrars note in etcd who serves a node; an empty value turns off the check for a second one."`
}

// runCmd is the daemon.
type runCmd struct {
	etcdFlags
	nodeFlags
	dockerFlags
	advertiseFlags
	keepFlags
	adminFlags
	cli.Log
	All                bool          `help:"Register every container that publishes a TCP port, not only labelled ones."`
	LabelPrefix        string        `default:"nuncio" help:"Prefix of the labels."`
	MultiPort          string        `enum:"refuse,suffix" default:"refuse" help:"Containers with several ports and one service name: refuse them, or register NAME-PORT for each (suffix)."`
	ContainerAddresses bool          `help:"Register the containers' own addresses and ports instead of the host's published ones."`
	CopyLabels         []string      `placeholder:"PREFIX" help:"Copy labels that begin so into the records' meta."`
	OnExit             string        `enum:"keep,remove" default:"keep" help:"On TERM: keep the records until their lease ends, so that a restart is not noticed, or remove them at once."`
	StopWindow         time.Duration `default:"5m" help:"How long a container that got its stop signal and lives on stays in drain."`
	Sweep              time.Duration `default:"30s" help:"Pause between complete comparisons of Docker and etcd; changes do not wait for it."`
	AdminListen        string        `default:"127.0.0.1:9117" help:"Address of /healthz, /readyz, /metrics and /v1/list; read-only; empty for none."`
	Once               bool          `help:"End when etcd agrees with Docker. The records live for one --ttl."`
	DryRun             bool          `help:"Show what would be written, and end."`
	Timeout            time.Duration `default:"30s" help:"How long --once and --dry-run wait for Docker and etcd."`
}

// Run is the daemon.
func (c *runCmd) Run(ctx context.Context, s *streams) error {
	prefix, err := labelPrefix(c.LabelPrefix)
	if err != nil {
		return usage("%w", err)
	}
	node, err := c.node()
	if err != nil {
		return err
	}
	d := daemon{
		etcdFlags: c.etcdFlags, dockerFlags: c.dockerFlags, advertiseFlags: c.advertiseFlags, adminFlags: c.adminFlags, log: c.Logger(s.err),
		sweep: c.Sweep, stopWindow: c.StopWindow, admin: c.AdminListen,
		rules: register.Rules{
			Node: node, LabelPrefix: prefix, All: c.All, MultiPort: c.MultiPort,
			ContainerAddresses: c.ContainerAddresses, CopyLabels: c.CopyLabels,
		},
		opts: register.Options{
			Node: node, Kind: register.KindRun, TTL: c.TTL, ClaimPrefix: c.ClaimPrefix, Leave: c.OnExit == "remove",
			Once: c.Once, DryRun: c.DryRun,
		},
	}
	if !c.Once && !c.DryRun {
		return d.run(ctx, s)
	}
	d.admin = ""
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	return d.run(ctx, s)
}

// classicCmd is docker-register's form.
type classicCmd struct {
	etcdFlags
	nodeFlags
	dockerFlags
	advertiseFlags
	keepFlags
	adminFlags
	cli.Log
	Container   string        `arg:"" help:"Name of the container. It may come later, and come again."`
	Port        int           `arg:"" help:"Its TCP port, inside the container."`
	Service     string        `arg:"" help:"Name of the service."`
	LabelPrefix string        `default:"nuncio" help:"Prefix of the labels."`
	OnExit      string        `enum:"keep,remove" default:"remove" help:"On TERM: remove the record at once, or keep it until its lease ends."`
	StopWindow  time.Duration `default:"5m" help:"How long a container that got its stop signal and lives on stays in drain."`
	Sweep       time.Duration `default:"30s" help:"Pause between complete comparisons of Docker and etcd; changes do not wait for it."`
	AdminListen string        `placeholder:"ADDR" help:"Address of /healthz, /readyz, /metrics and /v1/list; read-only; none by default."`
}

// Run serves one container.
func (c *classicCmd) Run(ctx context.Context, s *streams) error {
	prefix, err := labelPrefix(c.LabelPrefix)
	if err != nil {
		return usage("%w", err)
	}
	node, err := c.node()
	if err != nil {
		return err
	}
	if c.Port < 1 || c.Port > 65535 {
		return usage("PORT %d: a TCP port from 1 to 65535 is needed", c.Port)
	}
	container := strings.TrimPrefix(c.Container, "/")
	d := daemon{
		etcdFlags: c.etcdFlags, dockerFlags: c.dockerFlags, advertiseFlags: c.advertiseFlags, adminFlags: c.adminFlags, log: c.Logger(s.err),
		sweep: c.Sweep, stopWindow: c.StopWindow, admin: c.AdminListen,
		rules: register.Rules{
			Node: node, LabelPrefix: prefix,
			Only: &register.Only{Container: container, Port: c.Port, Service: c.Service},
		},
		opts: register.Options{
			Node: node, Kind: register.KindClassic, Only: [2]string{c.Service, container}, TTL: c.TTL,
			ClaimPrefix: c.ClaimPrefix, Leave: c.OnExit == "remove",
		},
	}
	return d.run(ctx, s)
}

// daemon wires a registrar to Docker, etcd and its admin listener.
type daemon struct {
	etcdFlags
	dockerFlags
	advertiseFlags
	adminFlags
	log               *slog.Logger
	sweep, stopWindow time.Duration
	admin             string
	rules             register.Rules
	opts              register.Options
}

func (d *daemon) run(ctx context.Context, s *streams) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := register.NewMetrics(registry)
	if d.sweep <= 0 || d.stopWindow <= 0 {
		return usage("--sweep and --stop-window need a duration above zero")
	}
	api, closeAPI, err := d.api()
	if err != nil {
		return err
	}
	defer closeAPI()
	store, config, err := d.dial(s, d.log)
	if err != nil {
		return err
	}
	defer store.Close()
	advertise, err := d.advertise(config.Endpoints)
	if err != nil {
		return err
	}
	d.opts.Client, d.opts.Prefix, d.opts.Sweep, d.opts.Log, d.opts.Metrics = store, d.Prefix, d.sweep, d.log, metrics
	d.opts.Source = register.NewDocker(register.DockerOptions{
		API: api, Rules: d.rules, Advertise: advertise, Sweep: d.sweep, StopWindow: d.stopWindow, Log: d.log, Metrics: metrics,
	})
	reg, err := register.New(d.opts)
	if err != nil {
		return usage("%w", err)
	}
	var listener net.Listener
	if d.admin != "" {
		if listener, err = net.Listen("tcp", d.admin); err != nil {
			return cannotStart("--admin-listen: %w", err)
		}
		d.log.Info("registrar starts", "version", version, "node", d.opts.Node, "kind", d.opts.Kind,
			"etcd", strings.Join(config.Endpoints, ","), "admin", listener.Addr().String())
	} else {
		d.log.Info("registrar starts", "version", version, "node", d.opts.Node, "kind", d.opts.Kind,
			"etcd", strings.Join(config.Endpoints, ","))
	}
	g, gctx := errgroup.WithContext(ctx)
	adminCtx, stopAdmin := context.WithCancel(gctx)
	g.Go(func() error {
		defer stopAdmin()
		return reg.Run(gctx)
	})
	g.Go(func() error { return serveAdmin(adminCtx, listener, d.AdminHost, reg.Status, registry) })
	if err := g.Wait(); err != nil {
		return err
	}
	return d.conclude(ctx, reg.Status(), s.out)
}

// conclude says how --once or --dry-run ended.
func (d *daemon) conclude(ctx context.Context, status register.Status, out io.Writer) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("no agreement between Docker and etcd in time: %s", why(status))
	}
	if d.opts.DryRun {
		printChanges(out, status)
	}
	return nil
}

func why(s register.Status) string {
	var reasons []string
	if s.Docker != "" {
		reasons = append(reasons, "docker: "+s.Docker)
	}
	if s.Etcd != "" {
		reasons = append(reasons, "etcd: "+s.Etcd)
	}
	if len(reasons) == 0 {
		return "one of them has not answered yet"
	}
	return strings.Join(reasons, "; ")
}
