package main

import (
	"context"
	"fmt"
	"time"

	"nuncio/internal/cli"
	"nuncio/reload"
)

type stopCmd struct {
	runningFlags
	cli.Log
	HAProxy      string        `name:"haproxy" default:"haproxy" help:"HAProxy program, as nuncio run was given it."`
	DrainTimeout time.Duration `default:"25s" help:"How long requests in progress may take."`
	IfStopped    bool          `help:"For systemd's ExecStopPost=: do nothing if nuncio has died, since systemd starts it again."`
}

// died are the values of SERVICE_RESULT with which systemd says that a service ended by itself; see systemd.exec(5). A unit that
// an operator stops has "success", or "timeout" if it took too long.
var died = map[string]bool{"exit-code": true, "signal": true, "core-dump": true, "watchdog": true, "oom-kill": true}

// Run ends the HAProxy that a killed nuncio has left running, as nuncio would: it adopts it and drains it.
func (c *stopCmd) Run(ctx context.Context, s *streams) error {
	if result, _ := s.getenv("SERVICE_RESULT"); c.IfStopped && died[result] {
		fmt.Fprintf(s.out, "nuncio ended with the result %s; HAProxy serves on\n", result)
		return nil
	}
	m, err := reload.New(reload.Options{
		HAProxy: c.HAProxy, StateDir: c.StateDir, DrainTimeout: c.DrainTimeout, StartWait: time.Hour, Logger: c.Logger(s.err),
	})
	if err != nil {
		return cannotStart("%w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	for found := false; ; {
		changed := m.Changed()
		if now := m.Status(); now.State == reload.Waiting { // it has looked for a haproxy
			found = now.MasterPid != 0
			stop()
		}
		select {
		case <-changed:
		case err := <-ended:
			if err == nil && !found && !c.IfStopped {
				fmt.Fprintln(s.out, "No HAProxy runs on this state directory that could be drained.")
			}
			return err
		}
	}
}
