package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/status"
)

// lookEvery is the interval of polling for saved files. Polling works where inotify does not: editors replace files,
// and container mounts do not pass on events.
const lookEvery = 200 * time.Millisecond

// watch checks after every save until ctx ends. It compares each valid result with the previous valid one.
func (c *checkCmd) watch(ctx context.Context, s *streams) error {
	p, seen := s.paint(), ""
	var last haproxy.Files
	for first := true; ; first = false {
		if now := c.fingerprint(); first || now != seen {
			seen = now
			fmt.Fprintln(s.out, p.faint(time.Now().Format("15:04:05")))
			files, err := c.check(ctx, s)
			switch {
			case err != nil:
				fmt.Fprintf(s.out, "%s\n", p.bad(visible(err.Error())))
			case last.Digest() == "":
				c.accepted(s, files)
			case files.Equal(last):
				fmt.Fprintln(s.out, p.good("HAProxy accepts it; the rendered files have not changed."))
			default:
				printDiff(s.out, p, status.Compare("before", "now", last, files))
				fmt.Fprintln(s.out, p.good("HAProxy accepts it."))
			}
			if err == nil {
				last = files
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(lookEvery):
		}
	}
}

// fingerprint returns a text that changes whenever a file is saved, created or removed.
func (c *checkCmd) fingerprint() string {
	var b strings.Builder
	note := func(path string, info fs.FileInfo) {
		fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
	}
	if c.Templates != "" {
		// The check itself reports a file that cannot be read.
		_ = filepath.WalkDir(c.Templates, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			if info, err := os.Stat(path); err == nil {
				note(path, info)
			}
			return nil
		})
	}
	if c.Records != "" && c.Records != "-" {
		if info, err := os.Stat(c.Records); err == nil {
			note(c.Records, info)
		}
	}
	return b.String()
}
