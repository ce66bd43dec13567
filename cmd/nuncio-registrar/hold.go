package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"nuncio/internal/catalog"
	"nuncio/internal/cli"
	"nuncio/internal/proc"
	"nuncio/register"
)

// holdCmd registers what is no container.
type holdCmd struct {
	etcdFlags
	nodeFlags
	keepFlags
	cli.Log
	Record  string            `arg:"" name:"service/instance" help:"The record, such as web/legacy-1."`
	Address string            `arg:"" name:"host:port" help:"Where it is reached."`
	Command []string          `arg:"" optional:"" passthrough:"" help:"A command to run, after --; the record lives as long as it does."`
	Weight  int               `default:"100" help:"Weight, 0 to 256."`
	State   string            `enum:"ready,drain,maint" default:"ready" help:"State: ready, drain or maint."`
	Tags    []string          `placeholder:"TAG" help:"Tags."`
	Meta    map[string]string `placeholder:"NAME=VALUE" help:"Meta entries, such as http.host=www.example.com."`
	Start   time.Duration     `name:"start-timeout" default:"30s" help:"With a command: how long HOST:PORT may take to accept connections; the record waits for that."`
	Stop    time.Duration     `name:"stop-timeout" default:"10s" help:"With a command: how long it may take to end before it is killed."`
	OnExit  string            `enum:"keep,remove" default:"remove" help:"At the end: remove the record at once, or keep it until its lease ends."`
}

// Run holds the record until it is told to end, or the command ends.
func (c *holdCmd) Run(ctx context.Context, s *streams) error {
	if len(c.Command) > 0 && c.Command[0] == "--" {
		c.Command = c.Command[1:]
	}
	node, err := c.node()
	if err != nil {
		return err
	}
	rec, err := c.record()
	if err != nil {
		return err
	}
	log := c.Logger(s.err)
	client, _, err := c.dial(s, log)
	if err != nil {
		return err
	}
	defer client.Close()
	reg, err := register.New(register.Options{
		Client: client, Source: register.Fixed{rec}, Prefix: c.Prefix, ClaimPrefix: c.ClaimPrefix, Node: node,
		Kind: register.KindHold, Only: [2]string{rec.Service, rec.Instance.Name}, TTL: c.TTL, Leave: c.OnExit == "remove", Log: log,
	})
	if err != nil {
		return usage("%w", err)
	}
	if len(c.Command) > 0 {
		return c.beside(ctx, reg, log, s)
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return reg.Run(ctx)
}

func (c *holdCmd) record() (register.Record, error) {
	service, instance, ok := strings.Cut(c.Record, "/")
	if !ok {
		return register.Record{}, usage("%q: SERVICE/INSTANCE is needed, such as web/legacy-1", c.Record)
	}
	host, portText, err := net.SplitHostPort(c.Address)
	if err != nil {
		return register.Record{}, usage("%q: HOST:PORT is needed, such as 192.0.2.7:8080", c.Address)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return register.Record{}, usage("%q: the port has to be a number from 1 to 65535", c.Address)
	}
	for name := range c.Meta {
		if register.Reserved(name) {
			return register.Record{}, usage("--meta=%s=...: the registrar writes an entry of this name itself", name)
		}
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	rec := register.Record{Service: service, Instance: catalog.Instance{
		Name: instance, Host: host, Port: int(port), Weight: c.Weight, State: catalog.State(c.State), Tags: c.Tags, Meta: c.Meta,
	}}
	if _, err := catalog.Key(c.Prefix, service, instance); err != nil {
		return register.Record{}, usage("%q: %w", c.Record, err)
	}
	if _, err := catalog.Encode(&rec.Instance); err != nil {
		return register.Record{}, usage("%s %s: %w", c.Record, c.Address, err)
	}
	return rec, nil
}

// beside runs the command and registers it from the moment when it accepts connections until a signal comes or
// it ends. The record goes before the signal is passed on, so that nothing is sent to a server that is ending.
func (c *holdCmd) beside(ctx context.Context, reg *register.Registrar, log *slog.Logger, s *streams) error {
	path, err := exec.LookPath(c.Command[0])
	if err != nil {
		return cannotStart("run the command: %w", err)
	}
	cmd := exec.Command(path, c.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, s.out, s.err
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	reaper := proc.NewReaper(proc.Options{Logger: log})

	ours := make(chan os.Signal, 16)
	signal.Notify(ours)
	defer signal.Stop(ours)
	passed := make(chan os.Signal, 16)
	over, finish := context.WithCancel(ctx)       // the command has ended
	registered, leave := context.WithCancel(over) // the record is wanted
	defer leave()
	kill, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	var group errgroup.Group
	left := make(chan struct{})
	var code int
	var taken error
	group.Go(func() error { return reaper.Run(over) })
	group.Go(func() error {
		defer finish()
		var err error
		code, err = reaper.RunForeground(kill, cmd, passed, c.Stop)
		return err
	})
	group.Go(func() error {
		defer close(left)
		if !c.listening(registered) {
			return nil
		}
		err := reg.Run(registered)
		switch {
		case errors.Is(err, register.ErrClaimed):
			taken = err
			giveUp() // somebody else serves this record: do not run a server that nobody reaches
		case err != nil:
			log.Warn("trouble with etcd, the command's end counts", "err", err)
		}
		return nil
	})
	group.Go(func() error {
		relay(over, ours, passed, leave, left, giveUp, c.Stop)
		return nil
	})
	if err := errors.Join(group.Wait(), taken); err != nil {
		return err
	}
	if code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// relay passes signals on to the command; those that end it only after the record has gone.
func relay(over context.Context, from <-chan os.Signal, to chan<- os.Signal, leave func(), left <-chan struct{}, giveUp func(), grace time.Duration) {
	var tooLate <-chan time.Time
	for {
		select {
		case <-over.Done():
			return
		case <-tooLate:
			giveUp()
			tooLate = nil
		case sig := <-from:
			switch sig {
			case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
				continue
			case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
				leave()
				select {
				case <-left:
				case <-over.Done():
				}
				if tooLate == nil {
					tooLate = time.After(grace)
				}
			}
			select {
			case to <- sig:
			case <-over.Done():
			}
		}
	}
}

// listening waits until the address accepts a connection. A command that takes longer than allowed is
// registered all the same: the proxies have health checks of their own.
func (c *holdCmd) listening(ctx context.Context) bool {
	deadline := time.Now().Add(c.Start)
	dialer := net.Dialer{Timeout: time.Second}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", c.Address)
		if err == nil {
			_ = conn.Close() // it has served its purpose
			return true
		}
		if time.Now().After(deadline) {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	return false
}
