package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"nuncio/status"
)

type historyCmd struct {
	runningFlags
	JSON  bool `name:"json" help:"Print JSON, as /v1/history has it."`
	Limit int  `default:"20" help:"Show at most this many lines, the newest; 0 for all."`
}

// Run asks the running nuncio, which knows how long attempts took and why they failed. Without one it reads the disk.
func (c *historyCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	var doc status.HistoryDoc
	err := c.client().Get(ctx, "/v1/history", &doc)
	switch {
	case errors.Is(err, status.ErrUnreachable):
		doc.Document = 1
		if doc.Changes, err = status.History(status.StateDir(c.StateDir), nil); err != nil {
			return cannotStart("%w", err)
		}
	case err != nil:
		return notRunning(err)
	}
	if c.JSON {
		return encode(s.out, doc)
	}
	c.print(s, doc.Changes)
	return nil
}

func (c *historyCmd) print(s *streams, changes []status.Change) {
	if len(changes) == 0 {
		fmt.Fprintf(s.out, "Nothing has been applied from %s yet.\n", c.StateDir)
		return
	}
	p := s.paint()
	const columns = "%-14s  %s  %5s  %4s  %8s  %7s  %s\n"
	fmt.Fprint(s.out, p.faint(fmt.Sprintf(columns, "TIME", "CHANGE   ", "GEN", "SET", "REVISION", "TOOK", "WHY")))
	for i, change := range changes {
		if c.Limit > 0 && i == c.Limit {
			fmt.Fprintf(s.out, "and %d more (--limit=0)\n", len(changes)-i)
			break
		}
		word := fmt.Sprintf("%-9s", change.Kind)
		switch {
		case change.Failed():
			word = p.bad(word)
		case change.Kind == "templates":
			word = p.bold(word)
		}
		why, took := change.Reason, ""
		if change.Changes > 0 {
			why = cmp.Or(why, plural(change.Changes, "change", "changes"))
		}
		if change.Seconds > 0 {
			took = status.Span(change.Seconds)
		}
		fmt.Fprintf(s.out, columns, change.Time.Local().Format("01-02 15:04:05"), word, orDash(change.Generation), orDash(change.TemplateSet),
			orDash(change.Revision), took, firstLine(why))
	}
}

func orDash(n int64) string {
	if n == 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}
