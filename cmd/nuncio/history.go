package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"time"

	"nuncio/reload"
	"nuncio/status"
)

type historyCmd struct {
	runningFlags
	JSON  bool `name:"json" help:"Print JSON."`
	Limit int  `default:"20" help:"Show at most this many lines, the newest; 0 for all."`
}

// historyDoc is the output of --json.
type historyDoc struct {
	Applies     []status.Apply      `json:"applies"`
	Generations []status.Generation `json:"generations"`
}

// Run asks the running nuncio for its attempts and the disk for the generations before them; it works without a
// running nuncio too.
func (c *historyCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	var doc historyDoc
	var o status.Overview
	err := c.client().Get(ctx, "/v1/status", &o)
	if err != nil && !errors.Is(err, status.ErrUnreachable) {
		return notRunning(err)
	}
	doc.Applies = append([]status.Apply{}, o.Applies...)
	all, err := reload.Generations(c.StateDir)
	doc.Generations = status.ShowGenerations(all)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return cannotStart("%w", err)
	}
	if c.JSON {
		return encode(s.out, doc)
	}
	c.print(s, doc)
	return nil
}

func (c *historyCmd) print(s *streams, doc historyDoc) {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	p, known := s.paint(), map[int64]bool{}
	row := func(at time.Time, word string, generation string, revision int64, took, reason string) {
		lines = append(lines, line{at, fmt.Sprintf("%s  %s  %10s  %8d  %8s  %s", at.Local().Format("2006-01-02 15:04:05"), word, generation, revision, took, fit(reason, 20))})
	}
	for _, a := range doc.Applies {
		word := fmt.Sprintf("%-9s", a.Outcome)
		generation := "-"
		if a.Generation > 0 {
			known[a.Generation] = true
			generation = strconv.FormatInt(a.Generation, 10)
		}
		if a.Failed() {
			word = p.bad(word)
		}
		row(a.Time, word, generation, a.Revision, brief(a.Seconds), a.Reason)
	}
	for _, g := range doc.Generations {
		if !known[g.Number] {
			row(g.Created, "written  ", strconv.FormatInt(g.Number, 10), g.Revision, "", "")
		}
	}
	if len(lines) == 0 {
		fmt.Fprintf(s.out, "Nothing has been applied from %s yet.\n", c.StateDir)
		return
	}
	slices.SortStableFunc(lines, func(a, b line) int { return b.at.Compare(a.at) })
	fmt.Fprintln(s.out, p.faint(fmt.Sprintf("%-19s  %-9s  %10s  %8s  %8s  %s", "TIME", "RESULT", "GENERATION", "REVISION", "TOOK", "WHY")))
	for i, l := range lines {
		if c.Limit > 0 && i == c.Limit {
			fmt.Fprintf(s.out, "and %d more (--limit=0)\n", len(lines)-i)
			break
		}
		fmt.Fprintln(s.out, l.text)
	}
}

type acceptCmd struct{ runningFlags }

// Run accepts what the shrink guard holds back.
func (c *acceptCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	var held bool
	if err := c.client().Do(ctx, "accept", nil, &held); err != nil {
		return notRunning(err)
	}
	if held {
		fmt.Fprintln(s.out, "Accepted: what vanished from etcd is being taken out of HAProxy.")
	} else {
		fmt.Fprintln(s.out, "Nothing is held back.")
	}
	return nil
}
