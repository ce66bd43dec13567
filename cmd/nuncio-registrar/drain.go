package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nuncio/internal/cli"
	"nuncio/internal/etcd"
	"nuncio/register"
)

// drainCmd sets the state of a container's records in etcd to drain.
type drainCmd struct {
	etcdFlags
	nodeFlags
	cli.Log
	Container string        `arg:"" help:"Name or id of the container, or SERVICE/INSTANCE."`
	Wait      time.Duration `default:"0s" help:"How long to wait after etcd has confirmed, so that requests in progress can finish."`
	Undo      bool          `help:"Let the container get traffic again."`
	Timeout   time.Duration `default:"10s" help:"How long etcd may take to confirm."`
}

// Run drains and waits.
func (c *drainCmd) Run(ctx context.Context, s *streams) error {
	node, err := c.node()
	if err != nil {
		return err
	}
	if c.Timeout <= 0 {
		return usage("--timeout needs a duration above zero")
	}
	client, config, err := c.dial(s, c.Logger(s.err))
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := untilSignal(ctx)
	defer stop()
	keys, err := register.Drain(ctx, register.DrainOptions{
		Client: client, Prefix: c.Prefix, Node: node, Target: c.Container, Undo: c.Undo, Timeout: c.Timeout, Wait: c.Wait,
	})
	if err != nil && !errors.Is(err, register.ErrNoRecord) {
		return fmt.Errorf("ask etcd at %v: %w", config.Endpoints, etcd.Explain(client, err))
	}
	for _, key := range keys {
		fmt.Fprintln(s.out, key)
	}
	return err
}
