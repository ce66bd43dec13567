package process

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	keepLines   = 100
	maxLineSize = 8 << 10
	// closeAfter is how long after the master's end its output is read at most.
	closeAfter = time.Second
)

// output takes what haproxy prints, line by line: it logs each line and keeps the last ones for error
// messages. It never blocks haproxy for longer than the logger does.
type output struct {
	log *slog.Logger

	mu      sync.Mutex
	partial []byte
	lines   []string
	seen    int // lines so far, those forgotten included

	ended chan struct{} // closed when nothing more is read
}

func newOutput(log *slog.Logger) *output { return &output{log: log, ended: make(chan struct{})} }

// follow reads in until every process that may write to it has ended, but not for much longer than the master lives; then it
// closes in.
func (o *output) follow(in *os.File, master <-chan struct{}) {
	go func() {
		defer close(o.ended)
		_, _ = io.Copy(o, in) // it ends with the last writer or with Close
	}()
	go func() {
		<-master
		o.awaitEnd(closeAfter)
		_ = in.Close() // only read
	}()
}

// awaitEnd waits until everything has been read, or for limit.
func (o *output) awaitEnd(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-o.ended:
	case <-timer.C:
	}
}

// Write takes bytes as they come; it never fails. What a line has beyond maxLineSize is dropped.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		free := max(maxLineSize-len(o.partial), 0)
		o.partial = append(o.partial, line[:min(len(line), free)]...)
		if whole {
			o.line(strings.ToValidUTF8(string(o.partial), "\ufffd"))
			o.partial = o.partial[:0]
		}
		p = rest
	}
	return n, nil
}

func (o *output) line(text string) {
	o.seen++
	if len(o.lines) == keepLines {
		o.lines = o.lines[1:]
	}
	o.lines = append(o.lines, text)
	o.log.Log(context.Background(), level(text), "haproxy", "line", text)
}

// position returns how many lines there were so far.
func (o *output) position() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

// since returns the kept lines that came after a position, tidied.
func (o *output) since(position int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	fresh := min(o.seen-max(position, 0), len(o.lines))
	return tidy(strings.Join(o.lines[len(o.lines)-fresh:], "\n"), "")
}

func level(line string) slog.Level {
	switch {
	case strings.Contains(line, " stopped (cumulated conns: "):
		// Every reload makes the old worker warn once per proxy that it does what it was asked to.
		return slog.LevelDebug
	case strings.HasPrefix(line, "[ALERT]"), strings.HasPrefix(line, "[EMERG]"):
		return slog.LevelError
	case strings.HasPrefix(line, "[WARNING]"):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
