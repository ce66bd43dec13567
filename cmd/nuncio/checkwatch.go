package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/status"
	"nuncio/watch"
)

// recordsPoll is the interval of looking for a saved file of records. It is polled, because editors replace files.
const recordsPoll = 200 * time.Millisecond

// watch checks after every save until ctx ends. It compares each valid result with the previous valid one.
func (c *checkCmd) watch(ctx context.Context, s *streams) error {
	var background sync.WaitGroup
	defer background.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trees := make(chan map[string]string)
	due := true
	if o := c.dirOptions(); o.Dir != "" {
		if _, err := c.tree(); err != nil {
			return cannotStart("%w", err)
		}
		due = false // the first tree comes soon
		o.Logger = slog.New(slog.NewTextHandler(s.err, nil))
		dir := watch.NewDir(o)
		background.Go(func() { _ = dir.Run(ctx, trees) }) // it returns nil
	}
	tick := time.NewTicker(recordsPoll)
	defer tick.Stop()
	saved := c.recordsSaved()
	var last haproxy.Files
	for {
		if due {
			last, due = c.checkAgain(ctx, s, last), false
		}
		select {
		case <-ctx.Done():
			return nil
		case <-trees:
			due = true
		case <-tick.C:
			if now := c.recordsSaved(); now != saved {
				saved, due = now, true
			}
		}
	}
}

// checkAgain prints one result and returns the files of the last valid one.
func (c *checkCmd) checkAgain(ctx context.Context, s *streams, last haproxy.Files) haproxy.Files {
	p := s.paint()
	fmt.Fprintln(s.out, p.faint(time.Now().Format("15:04:05")))
	result, err := c.check(ctx, s)
	if err != nil {
		fmt.Fprintf(s.out, "%s\n", p.bad(sanitize(err.Error())))
		return last
	}
	if err := errorOfDropped(result); err != nil {
		fmt.Fprintf(s.out, "%s\n", p.bad(sanitize(err.Error())))
	}
	files := result.Files
	switch {
	case last.Digest() == "":
		c.accepted(s, files)
	case files.Equal(last):
		fmt.Fprintln(s.out, p.good("HAProxy accepts it; the rendered files have not changed."))
	default:
		printDiff(s.out, p, status.Compare("before", "now", last, files))
		fmt.Fprintln(s.out, p.good("HAProxy accepts it."))
	}
	return files
}

// recordsSaved returns a text that changes whenever the file of records is saved.
func (c *checkCmd) recordsSaved() string {
	if info, err := os.Stat(c.Records); err == nil {
		return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
	}
	return "" // the check itself reports a file that cannot be read
}
