package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The defaults of DirOptions.
const (
	// DefaultPoll is how often a directory is read without any event: some file systems send none.
	DefaultPoll = 5 * time.Second
	// DefaultSettle is how long a directory must be quiet before it is read, so that a checkout, or an editor's write
	// and rename, is seen as a whole.
	DefaultSettle = 75 * time.Millisecond
	maxSettle     = time.Second
)

// DirOptions configure a Dir. Dir is required; a zero elsewhere means the default.
type DirOptions struct {
	// Dir is the directory of the templates.
	Dir string
	// Only chooses files and directories by their path relative to Dir; nil means all.
	Only func(name string) bool
	// Poll is the time between two reads without an event.
	Poll time.Duration
	// Settle is the quiet time before a read.
	Settle time.Duration
	// Logger may be nil.
	Logger *slog.Logger
}

// Dir follows the files of a directory tree.
type Dir struct {
	o       DirOptions
	log     *slog.Logger
	refresh chan struct{}
	reads   atomic.Int64 // for tests
}

// NewDir returns a Dir; it starts and reads nothing.
func NewDir(o DirOptions) *Dir {
	o.Poll, o.Settle = orDefault(o.Poll, DefaultPoll), orDefault(o.Settle, DefaultSettle)
	o.Dir = filepath.Clean(o.Dir)
	d := &Dir{o: o, log: o.Logger, refresh: make(chan struct{}, 1)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Refresh requests a read without waiting for it.
func (d *Dir) Refresh() {
	select {
	case d.refresh <- struct{}{}:
	default: // one is requested already
	}
}

// Run reads the tree at once, and again whenever something may have changed, until ctx ends. It sends the files to out,
// under the contract in the package comment. While the directory cannot be read the last files remain.
func (d *Dir) Run(ctx context.Context, out chan<- map[string]string) error {
	r := &dirRun{Dir: d}
	var events chan fsnotify.Event
	var errs chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("no file events, polling the templates", "err", err, "every", d.o.Poll)
	} else {
		defer func() { _ = watcher.Close() }()
		r.watcher, events, errs = watcher, watcher.Events, watcher.Errors
		r.watchDir(filepath.Dir(d.o.Dir))
	}
	poll := time.NewTicker(d.o.Poll)
	defer poll.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	for {
		var send chan<- map[string]string
		if r.next != nil {
			send = out
		}
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			if !open { // fsnotify gives up when inotify itself fails
				events, errs = nil, nil
			} else if r.affects(e) {
				settled.Reset(r.untilSettled(time.Now()))
			}
		case err := <-errs: // most likely the queue overflowed: anything may have changed
			d.log.Debug("file events were lost", "err", err)
			settled.Reset(r.untilSettled(time.Now()))
		case <-d.refresh:
			r.read()
		case <-poll.C:
			// What a poll finds may be half of a change.
			if r.firstEvent.IsZero() && r.differs() {
				settled.Reset(r.untilSettled(time.Now()))
			}
		case <-settled.C:
			r.read()
			if r.retry {
				settled.Reset(r.untilSettled(time.Now()))
			}
		case send <- r.next:
			r.last, r.next = r.next, nil
		}
	}
}

// dirRun is the state of one Run.
type dirRun struct {
	*Dir
	watcher    *fsnotify.Watcher
	firstEvent time.Time // since the last read

	last, next map[string]string // sent last, and waiting to be sent
	failed     bool              // the last read failed
	retry      bool              // and is repeated before it is logged
	logged     bool              // the failure is in the log
}

// untilSettled returns how long to wait for the directory to be quiet.
func (r *dirRun) untilSettled(now time.Time) time.Duration {
	if r.firstEvent.IsZero() {
		r.firstEvent = now
	}
	return max(0, min(r.o.Settle, r.firstEvent.Add(maxSettle).Sub(now)))
}

// affects reports whether an event may change the tree. Of the parent directory only the entry of the tree itself counts.
func (r *dirRun) affects(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false // backup programs change modes all the time; the poll finds a file that became readable
	}
	return filepath.Dir(e.Name) != filepath.Dir(r.o.Dir) || filepath.Clean(e.Name) == r.o.Dir
}

// differs reads the tree and reports whether the result is new.
func (r *dirRun) differs() bool {
	r.reads.Add(1)
	files, err := ReadDirOnly(r.o.Dir, r.o.Only)
	if err != nil {
		return !r.logged
	}
	newest := r.last
	if r.next != nil {
		newest = r.next
	}
	return r.failed || !maps.Equal(files, newest)
}

func (r *dirRun) read() {
	r.reads.Add(1)
	r.firstEvent, r.retry = time.Time{}, false
	// Events are requested before a directory is read, so that no change falls between.
	t := tree{root: r.o.Dir, only: r.o.Only, files: map[string]string{}, enter: r.watchDir}
	if err := t.walk("", nil); err != nil {
		// A file or a link that vanished during the read is back in a moment.
		r.retry = errors.Is(err, fs.ErrNotExist) && !r.failed
		if r.failed = true; !r.retry && !r.logged {
			r.logged = true
			r.log.Error("templates cannot be read, keeping the last ones", "dir", r.o.Dir, "err", err)
		}
		return
	}
	if r.logged {
		r.log.Info("templates can be read again", "dir", r.o.Dir)
	}
	r.failed, r.logged = false, false
	r.next = t.files
	if r.last != nil && maps.Equal(t.files, r.last) {
		r.next = nil // changed and changed back before it was sent
	}
}

// watchDir requests events of a directory. Doing so again is cheap, and necessary when a different directory took its
// name.
func (r *dirRun) watchDir(dir string) {
	if r.watcher == nil {
		return
	}
	if err := r.watcher.Add(dir); err != nil {
		r.log.Debug("no file events for a directory", "dir", dir, "err", err)
	}
}
