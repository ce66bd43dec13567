package main

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/cli"
	"nuncio/register"
)

// registerCmd registers an endpoint that is not a container.
type registerCmd struct {
	etcdFlags
	nodeFlags
	recordFlags
	cli.Log
	Record  string            `arg:"" name:"service/instance" help:"The record, such as web/legacy-1."`
	Address string            `arg:"" name:"host:port" help:"Address of the endpoint."`
	Command []string          `arg:"" optional:"" passthrough:"" help:"A command to run, after --; the record lives as long as it does."`
	Weight  int               `default:"100" help:"Weight, 0 to 256."`
	State   string            `enum:"ready,drain,maint" default:"ready" help:"State: ready, drain or maint."`
	Tags    []string          `placeholder:"TAG" help:"Tags."`
	Meta    map[string]string `placeholder:"NAME=VALUE" help:"Meta entries, such as http.host=www.example.com."`
	Start   time.Duration     `name:"start-timeout" default:"30s" help:"With a command: how long HOST:PORT may take to accept connections; the record waits for that."`
	Stop    time.Duration     `name:"stop-timeout" default:"10s" help:"With a command: how long it may take to end before it is killed."`
	OnExit  string            `enum:"keep,remove" default:"remove" help:"At the end: remove the record at once, or keep it until its lease ends."`
}

// Run registers the record until a signal comes or the command ends.
func (c *registerCmd) Run(ctx context.Context, s *streams) error {
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
		Kind: register.KindRegister, Only: [2]string{rec.Service, rec.Instance.Name}, TTL: c.TTL, RemoveOnExit: c.OnExit == "remove", Log: log,
	})
	if err != nil {
		return usage("%w", err)
	}
	if len(c.Command) > 0 {
		return c.runWithCommand(ctx, reg, log, s)
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	return reg.Run(ctx)
}

func (c *registerCmd) record() (register.Record, error) {
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

func (c *registerCmd) runWithCommand(ctx context.Context, reg *register.Registrar, log *slog.Logger, s *streams) error {
	path, err := exec.LookPath(c.Command[0])
	if err != nil {
		return cannotStart("run the command: %w", err)
	}
	cmd := exec.Command(path, c.Command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, s.out, s.err
	code, err := reg.RunWithCommand(ctx, register.CommandOptions{
		Command: cmd, Address: c.Address, StartTimeout: c.Start, StopTimeout: c.Stop, Log: log,
	})
	if err == nil && code != 0 {
		err = &exitError{code: code}
	}
	return err
}
