package main

import (
	"context"
	"fmt"
	"net/url"
	"strconv"

	"nuncio/reconcile"
	"nuncio/status"
)

type rollbackCmd struct {
	runningFlags
	TemplateSet int64 `arg:"" optional:"" help:"Number of the template set (nuncio history lists them); the one before that which runs, if none is given."`
}

// Run goes back to an earlier template set and waits until HAProxy runs it.
func (c *rollbackCmd) Run(ctx context.Context, s *streams) error {
	var set reconcile.TemplateSet
	if err := c.order(ctx, s, status.OrderRollback, status.ArgumentRollback, c.TemplateSet, &set); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "HAProxy runs template set %d, which follows the records. Edits of the templates are not used until: nuncio resume\n", set.Number)
	return nil
}

type freezeCmd struct {
	runningFlags
	Generation int64 `arg:"" optional:"" help:"Number of the generation (nuncio history lists them); what runs now, if none is given."`
}

// Run freezes what HAProxy runs, or makes it run a generation and freezes that.
func (c *freezeCmd) Run(ctx context.Context, s *streams) error {
	var frozen reconcile.Frozen
	if err := c.order(ctx, s, status.OrderFreeze, status.ArgumentFreeze, c.Generation, &frozen); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "Frozen: HAProxy keeps generation %d. Neither records nor templates are followed until: nuncio resume\n", frozen.Generation)
	return nil
}

type resumeCmd struct{ runningFlags }

// Run ends a rollback or a freeze.
func (c *resumeCmd) Run(ctx context.Context, s *streams) error {
	var ended reconcile.Resumed
	if err := c.order(ctx, s, status.OrderResume, "", 0, &ended); err != nil {
		return err
	}
	what := "The freeze"
	if ended.RolledBack != nil {
		what = "The rollback"
	}
	fmt.Fprintln(s.out, what, "has ended; the newest templates and records are being applied (nuncio status).")
	return nil
}

type acceptCmd struct{ runningFlags }

// Run ends the hold of the shrink guard.
func (c *acceptCmd) Run(ctx context.Context, s *streams) error {
	var held bool
	if err := c.order(ctx, s, status.OrderAccept, "", 0, &held); err != nil {
		return err
	}
	if held {
		fmt.Fprintln(s.out, "Accepted: HAProxy loses what vanished from etcd.")
	} else {
		fmt.Fprintln(s.out, "The shrink guard holds nothing.")
	}
	return nil
}

// order gives the running nuncio an order, with an argument unless that is 0, and waits for the answer.
func (f *runningFlags) order(ctx context.Context, s *streams, name, argument string, value int64, answer any) error {
	args := url.Values{}
	if value != 0 {
		args.Set(argument, strconv.FormatInt(value, 10))
	}
	stop := showWaiting(s, "waiting for HAProxy to confirm")
	err := f.client().Do(ctx, name, args, answer)
	stop()
	if err != nil {
		return notRunning(err)
	}
	return nil
}
