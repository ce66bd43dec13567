package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nuncio/internal/certs"
)

const (
	outputPipe  = "output"
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

	in    *os.File
	ended chan struct{} // closed when nothing more is read
}

func newOutput(log *slog.Logger) *output { return &output{log: log, ended: make(chan struct{})} }

// openOutput returns both ends of the named pipe that haproxy prints to. A pipe without a name would end with nuncio: HAProxy
// would get SIGPIPE's error for each line, and what it says until the next nuncio comes would be lost. HAProxy gets it opened
// for reading too, so it is never without a reader, and without blocking: while no nuncio reads, the kernel keeps the first 64 KiB
// and drops the rest.
func openOutput(runDir string) (in, out *os.File, err error) {
	path := filepath.Join(runDir, outputPipe)
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeNamedPipe {
		if err := os.Remove(path); err != nil {
			return nil, nil, err
		}
	}
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, nil, fmt.Errorf("pipe %s: %w", path, err)
	}
	// Not with os.OpenFile, which hands its descriptors to a child as blocking ones.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("pipe %s: %w", path, err)
	}
	out = os.NewFile(uintptr(fd), path)
	if in, err = readOutput(runDir); err != nil {
		_ = out.Close() // nothing was written
		return nil, nil, err
	}
	return in, out, nil
}

// readOutput opens the end of the named pipe that nuncio reads.
func readOutput(runDir string) (*os.File, error) {
	return openReader(filepath.Join(runDir, outputPipe))
}

// readOutputOf opens the pipe that a running master has, whose name may be gone. The kernel does not show it if HAProxy's program
// has file capabilities.
func readOutputOf(pid int, runDir string) (*os.File, error) {
	path := fmt.Sprintf("/proc/%d/fd/2", pid)
	if info, err := os.Stat(path); err == nil && info.Mode().Type() == fs.ModeNamedPipe {
		if in, err := openReader(path); err == nil {
			return in, nil
		}
	}
	return readOutput(runDir)
}

func openReader(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// follow reads in until every process that may write to it has ended, but not for much longer than the master lives; then it
// closes in.
func (o *output) follow(in *os.File, master <-chan struct{}) {
	o.in = in
	go func() {
		defer close(o.ended)
		_, _ = io.Copy(o, in) // it ends with the last writer or with Close
	}()
	go func() {
		select {
		case <-master:
			o.awaitEnd(closeAfter)
		case <-o.ended: // by close
		}
		o.close()
	}()
}

// close ends the reading; what has not been read stays in the pipe while HAProxy lives.
func (o *output) close() { _ = o.in.Close() } // only read, and perhaps closed already

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
	if strings.HasPrefix(text, "[") { // a message, which may quote the configuration; other lines are about requests
		text = certs.Redact(text)
	}
	o.seen++
	if len(o.lines) == keepLines {
		o.lines = o.lines[1:]
	}
	severity := level(text)
	// A backend whose last server is drained by a command has none: the line follows the one about the server.
	if strings.HasSuffix(text, "' has no server available!") && len(o.lines) > 0 && strings.Contains(o.lines[len(o.lines)-1], " enters drain state") {
		severity = slog.LevelInfo
	}
	o.lines = append(o.lines, text)
	o.log.Log(context.Background(), severity, "haproxy", "line", text)
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

// obeyed are parts of the lines by which HAProxy 2.6 to 3.4 says that it does what it was asked to: the old worker at every
// reload, once per proxy, and the worker that serves at every command, for servers and backends that come, leave, rest and return.
var obeyed = []string{
	" stopped (cumulated conns: ", " enters drain state", " is going DOWN for maintenance", " (leaving forced maintenance)", " (leaving forced drain)",
	" : New server registered.", " : Server deleted.", " : New backend registered.", " : Backend published.", " : Backend unpublished.",
}

func level(line string) slog.Level {
	switch {
	case slices.ContainsFunc(obeyed, func(part string) bool { return strings.Contains(line, part) }):
		return slog.LevelDebug
	case strings.HasPrefix(line, "[ALERT]"), strings.HasPrefix(line, "[EMERG]"):
		return slog.LevelError
	case strings.HasPrefix(line, "[WARNING]"):
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
