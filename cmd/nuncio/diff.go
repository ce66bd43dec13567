package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/status"
)

type diffCmd struct {
	runningFlags
	From string `arg:"" optional:"" help:"Generation to compare from: a number, running or desired (default: running)."`
	To   string `arg:"" optional:"" help:"Generation to compare with (default: desired if the first is running, otherwise running)."`
	etcdFlags
	Confd string `placeholder:"DIR" env:"-" help:"Compare what runs with what this directory of confd makes of what etcd holds now, as render --diff does."`
	At    string `placeholder:"TIME" help:"Show what changed at this time (03:12, or 2026-11-22T03:12:00Z): compare the generation of that moment with the one before."`
}

// Run compares two sets of files. Sets on disk need no running nuncio.
func (c *diffCmd) Run(ctx context.Context, s *streams) error {
	if c.Confd != "" {
		if c.From+c.To+c.At != "" {
			return &exitError{exitUsage, errors.New("--confd compares with what runs: give no generation and no time with it")}
		}
		r := &renderCmd{Diff: true, StateDir: c.StateDir}
		r.Confd, r.etcdFlags = c.Confd, c.etcdFlags
		return r.Run(ctx, s)
	}
	ctx, cancel := context.WithTimeout(ctx, oneShot)
	defer cancel()
	from, to := c.From, c.To
	if c.At != "" {
		if from != "" {
			return &exitError{exitUsage, errors.New("--at chooses both generations: give no others with it")}
		}
		var err error
		if from, to, err = c.moment(s); err != nil {
			return err
		}
	}
	if from == "" {
		from = status.NameRunning
	}
	if to == "" {
		to = status.NameRunning
		if from == status.NameRunning {
			to = status.NameDesired
		}
	}
	before, err := c.files(ctx, from)
	if err != nil {
		return err
	}
	after, err := c.files(ctx, to)
	if err != nil {
		return err
	}
	d := status.Compare(sideName(from), sideName(to), before, after)
	if len(d.Files) == 0 {
		fmt.Fprintf(s.out, "No difference between %s and %s.\n", d.From, d.To)
		return nil
	}
	printDiff(s.out, s.paint(), d)
	return refused(errDiffers)
}

func (c *diffCmd) files(ctx context.Context, name string) (haproxy.Files, error) {
	desired := func() (haproxy.Files, error) { return c.client().DesiredFiles(ctx) }
	files, err := status.ReadFiles(status.StateDir(c.StateDir), name, desired)
	switch {
	case errors.Is(err, status.ErrNotGeneration):
		return files, &exitError{exitUsage, err}
	case err != nil:
		return files, notRunning(err)
	}
	return files, nil
}

// sideName is a name for display.
func sideName(name string) string {
	switch name {
	case status.NameRunning:
		return "what runs"
	case status.NameDesired:
		return "what is desired"
	default:
		return "generation " + name
	}
}

// moment returns what ran at the end of a minute or second and what ran before it. If nothing changed within that time,
// it returns the last change before it.
func (c *diffCmd) moment(s *streams) (from, to string, err error) {
	begin, end, err := parseMoment(c.At, time.Now())
	if err != nil {
		return "", "", &exitError{exitUsage, fmt.Errorf("--at: %w", err)}
	}
	all, err := reload.Generations(c.StateDir)
	if err != nil {
		return "", "", cannotStart("%w", err)
	}
	before, found := -1, -1
	for i, g := range all {
		if g.Created.Before(begin) {
			before = i
		}
		if g.Created.Before(end) {
			found = i
		}
	}
	if before == found {
		before--
	}
	const layout = "2006-01-02 15:04:05"
	if before < 0 {
		oldest := "nothing"
		if len(all) > 1 {
			oldest = "the second oldest from " + all[1].Created.Local().Format(layout)
		}
		return "", "", refused(fmt.Errorf("no two generations on disk are from before %s: there is %s (nuncio history)", end.Local().Format(layout), oldest))
	}
	g := all[found]
	what := string(g.Kind)
	if g.Kind == reload.KindEndpoints {
		what = plural(int(g.Changes), "endpoint change", "endpoint changes") + " since the last reload"
	}
	fmt.Fprintf(s.out, "Generation %d (%s; template set %d), from revision %d, was written %s:\n\n", g.Number, what, g.TemplateSet, g.Revision, g.Created.Local().Format(layout))
	return strconv.FormatInt(all[before].Number, 10), strconv.FormatInt(g.Number, 10), nil
}

// parseMoment returns begin and end of the minute or second that text names. A time of day means its latest occurrence.
func parseMoment(text string, now time.Time) (begin, end time.Time, err error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, t.Add(time.Second), nil
	}
	for layout, exact := range map[string]time.Duration{"15:04": time.Minute, "15:04:05": time.Second} {
		t, err := time.ParseInLocation(layout, text, now.Location())
		if err != nil {
			continue
		}
		at := time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location())
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}
		return at, at.Add(exact), nil
	}
	return time.Time{}, time.Time{}, fmt.Errorf("%q is not a time: want 03:12, 03:12:07 or 2026-11-22T03:12:07Z", text)
}

func printDiff(w io.Writer, p paint, d status.Diff) {
	for i, f := range d.Files {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s\n%s\n", p.bold("--- "+f.File+" ("+d.From+")"), p.bold("+++ "+f.File+" ("+d.To+")"))
		for _, line := range f.Lines {
			line = sanitize(line)
			switch {
			case strings.HasPrefix(line, "+"):
				line = p.good(line)
			case strings.HasPrefix(line, "-"):
				line = p.bad(line)
			case strings.HasPrefix(line, "@"):
				line = p.faint(line)
			}
			fmt.Fprintln(w, line)
		}
	}
}
