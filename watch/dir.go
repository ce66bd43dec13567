package watch

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The defaults of DirOptions.
const (
	// DefaultPoll is how often a directory is read without any hint: some file systems give none.
	DefaultPoll = 5 * time.Second
	// DefaultSettle is how long a directory must be quiet before it is read, so that a checkout or an editor's write
	// and rename is seen as a whole.
	DefaultSettle = 75 * time.Millisecond
	maxSettle     = time.Second
)

// DirOptions say what to watch. Dir is needed; a zero elsewhere means the default.
type DirOptions struct {
	// Dir is the directory of the templates.
	Dir string
	// Poll is the time between two reads without a hint.
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
}

// NewDir makes a Dir; it starts nothing and reads nothing.
func NewDir(o DirOptions) *Dir {
	o.Poll, o.Settle = orDefault(o.Poll, DefaultPoll), orDefault(o.Settle, DefaultSettle)
	o.Dir = filepath.Clean(o.Dir)
	d := &Dir{o: o, log: o.Logger, refresh: make(chan struct{}, 1)}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	return d
}

// Refresh asks for a read now. It does not wait for it.
func (d *Dir) Refresh() {
	select {
	case d.refresh <- struct{}{}:
	default: // one is asked for already
	}
}

// Run reads the tree at once, and again whenever something may have changed, until ctx ends. It sends the files to out
// when they differ from what was sent last; a reader that is busy gets the newest when it comes back. While the
// directory cannot be read the last files stand.
func (d *Dir) Run(ctx context.Context, out chan<- map[string]string) error {
	r := &dirRun{Dir: d}
	var events chan fsnotify.Event
	var errs chan error
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("no file events, reading the templates from time to time", "err", err, "every", d.o.Poll)
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
		case e := <-events:
			if r.concerns(e) {
				settled.Reset(r.arm(time.Now()))
			}
		case err := <-errs: // the queue ran over, most likely: anything may have changed
			d.log.Debug("file events were lost", "err", err)
			settled.Reset(r.arm(time.Now()))
		case <-d.refresh:
			r.read()
		case <-poll.C:
			// What a poll finds may be half of a change.
			if r.first.IsZero() && r.differs() {
				settled.Reset(r.arm(time.Now()))
			}
		case <-settled.C:
			r.read()
			if r.retry {
				settled.Reset(r.arm(time.Now()))
			}
		case send <- r.next:
			r.last, r.next = r.next, nil
		}
	}
}

// dirRun is the state of one Run.
type dirRun struct {
	*Dir
	watcher *fsnotify.Watcher
	first   time.Time // the first hint since the last read

	last, next map[string]string // what was sent, and what is to be
	failed     bool              // the last read failed
	retry      bool              // it is worth another try before anybody is told
	told       bool              // the failure is in the log
}

// arm tells how long to wait for the directory to settle.
func (r *dirRun) arm(now time.Time) time.Duration {
	if r.first.IsZero() {
		r.first = now
	}
	return max(0, min(r.o.Settle, r.first.Add(maxSettle).Sub(now)))
}

// concerns tells whether an event may change the tree. The parent directory is watched for our own name only.
func (r *dirRun) concerns(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false // the poll finds a file that became readable; backup programs touch modes all the time
	}
	return filepath.Dir(e.Name) != filepath.Dir(r.o.Dir) || filepath.Clean(e.Name) == r.o.Dir
}

// differs reads the tree and tells whether that is news.
func (r *dirRun) differs() bool {
	files, err := ReadDir(r.o.Dir)
	if err != nil {
		return !r.told
	}
	return r.failed || !maps.Equal(files, r.newest())
}

func (r *dirRun) newest() map[string]string {
	if r.next != nil {
		return r.next
	}
	return r.last
}

func (r *dirRun) read() {
	r.first, r.retry = time.Time{}, false
	// Hints are asked for before a directory is read, so that no change falls between.
	t := tree{root: r.o.Dir, files: map[string]string{}, enter: r.watchDir}
	err := t.walk("", nil)
	if err != nil {
		// A file or a link that vanished while it was being read is back in a moment.
		r.retry = gone(err) && !r.failed
		if r.failed = true; !r.retry && !r.told {
			r.told = true
			r.log.Error("templates cannot be read, keeping the last ones", "dir", r.o.Dir, "err", err)
		}
		return
	}
	if r.told {
		r.log.Info("templates can be read again", "dir", r.o.Dir)
	}
	r.failed, r.told = false, false
	switch {
	case r.last != nil && maps.Equal(t.files, r.last):
		r.next = nil // changed and changed back before anybody looked
	default:
		r.next = t.files
	}
}

// watchDir asks for hints about a directory. Asking again is cheap, and needed when another directory took its name.
func (r *dirRun) watchDir(dir string) {
	if r.watcher == nil {
		return
	}
	if err := r.watcher.Add(dir); err != nil {
		r.log.Debug("no file events for a directory", "dir", dir, "err", err)
	}
}
