package watch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// The defaults and limits of Files.
const (
	// DefaultFilesPoll is how often the files are looked at without any event.
	DefaultFilesPoll = 30 * time.Second
	// DefaultFilesTimeout is how long the files at one path may take to be read: a network file system may hang.
	DefaultFilesTimeout = 5 * time.Second
	// MaxOutsideBytes and MaxOutsideFiles bound what one path may hold, file by file and for a directory.
	MaxOutsideBytes = 2 << 20
	MaxOutsideFiles = 5000
)

// Outside is what one path held when it was read last.
type Outside struct {
	// Files are the contents by absolute path: of the file and its companions such as <path>.key, or of the files directly
	// in the directory. After an error they are those of the last time that there was none.
	Files map[string]string
	IsDir bool
	Err   error // why it could not be read this time
}

// FilesOptions configure Files. A zero means the default.
type FilesOptions struct {
	Poll, Settle, Timeout time.Duration
	Logger                *slog.Logger
}

// Files follows files and directories at any paths, such as certificates that another program renews.
type Files struct {
	o       FilesOptions
	log     *slog.Logger
	changed chan struct{}
	refresh chan struct{}

	mu       sync.Mutex
	followed map[string]Outside
	stamps   map[string]string // see stamp
	reading  map[string]bool   // paths whose file system has not answered yet
	watcher  *fsnotify.Watcher // nil while Run does not run
	dirs     map[string]bool   // directories that events are requested for
	relevant map[string]bool   // names whose events matter, and directories all of whose events do
}

// NewFiles returns Files that follow nothing; it starts and reads nothing.
func NewFiles(o FilesOptions) *Files {
	o.Poll, o.Settle = orDefault(o.Poll, DefaultFilesPoll), orDefault(o.Settle, DefaultSettle)
	o.Timeout = orDefault(o.Timeout, DefaultFilesTimeout)
	f := &Files{
		o: o, log: o.Logger, changed: make(chan struct{}, 1), refresh: make(chan struct{}, 1),
		followed: map[string]Outside{}, stamps: map[string]string{}, reading: map[string]bool{}, dirs: map[string]bool{}, relevant: map[string]bool{},
	}
	if f.log == nil {
		f.log = slog.New(slog.DiscardHandler)
	}
	return f
}

// Changed receives when Read would return something else than the last time.
func (f *Files) Changed() <-chan struct{} { return f.changed }

// Refresh makes Run read everything again, without waiting for it.
func (f *Files) Refresh() {
	select {
	case f.refresh <- struct{}{}:
	default: // one is requested already
	}
}

// Read returns what these paths hold, and from now on follows them and no others. A path that is followed already costs
// nothing. The maps must not be changed.
func (f *Files) Read(paths []string) map[string]Outside {
	f.mu.Lock()
	found, fresh := make(map[string]Outside, len(paths)), []string(nil)
	for _, path := range paths {
		if o, known := f.followed[path]; known {
			found[path] = o
		} else if !slices.Contains(fresh, path) {
			fresh = append(fresh, path)
		}
	}
	gone := len(f.followed) > len(found)
	f.mu.Unlock()
	if !gone && len(fresh) == 0 {
		return found
	}
	for began, i := time.Now(), 0; i < len(fresh); i++ {
		if time.Since(began) > f.o.Timeout { // the caller must not wait for each of a thousand
			found[fresh[i]] = Outside{Err: f.hangs(fresh[i])}
			continue
		}
		found[fresh[i]] = f.read(fresh[i], Outside{}, "")
	}
	f.mu.Lock()
	f.followed = maps.Clone(found)
	for path := range f.stamps {
		if _, there := found[path]; !there {
			delete(f.stamps, path)
		}
	}
	f.mu.Unlock()
	f.Refresh() // requests events of what was found, and reads what has changed until then
	return found
}

// Run follows the files until ctx ends.
func (f *Files) Run(ctx context.Context) error {
	var events chan fsnotify.Event
	var errs chan error
	if watcher, err := fsnotify.NewWatcher(); err != nil {
		f.log.Warn("no file events, polling the certificates", "err", err, "every", f.o.Poll)
	} else {
		defer func() { _ = watcher.Close() }()
		events, errs = watcher.Events, watcher.Errors
		f.mu.Lock()
		f.watcher = watcher
		f.mu.Unlock()
		f.Refresh()
	}
	defer func() {
		f.mu.Lock()
		f.watcher, f.dirs = nil, map[string]bool{}
		f.mu.Unlock()
	}()
	poll := time.NewTicker(f.o.Poll)
	defer poll.Stop()
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	var first time.Time // of the events since the last update
	var updated chan struct{}
	due, all := false, false // an update is due, of everything
	for {
		if due && updated == nil {
			// In a goroutine of its own: a file system that hangs must not keep nuncio from ending.
			updated = make(chan struct{})
			go func(all bool, done chan struct{}) {
				defer close(done)
				f.update(all)
			}(all, updated)
			due, all, first = false, false, time.Time{}
		}
		select {
		case <-ctx.Done():
			f.leave(updated)
			return nil
		case e, open := <-events:
			if !open { // fsnotify gives up when inotify itself fails
				events, errs = nil, nil
			} else if f.affects(e) {
				if first.IsZero() {
					first = time.Now()
				}
				settled.Reset(max(0, min(f.o.Settle, time.Until(first.Add(maxSettle)))))
			}
		case err := <-errs: // most likely the queue overflowed: anything may have changed
			f.log.Debug("file events were lost", "err", err)
			settled.Reset(f.o.Settle)
		case <-f.refresh:
			due, all = true, true
		case <-settled.C:
			due, all = true, true
		case <-poll.C:
			due = true
		case <-updated:
			updated = nil
		}
	}
}

// leave waits a moment for an update that is under way.
func (f *Files) leave(updated chan struct{}) {
	if updated == nil {
		return
	}
	select {
	case <-updated:
	case <-time.After(time.Second):
	}
}

// affects reports whether an event may change what is followed.
func (f *Files) affects(e fsnotify.Event) bool {
	if e.Op == fsnotify.Chmod {
		return false // the poll finds a file that became readable
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.relevant[e.Name] || f.relevant[filepath.Dir(e.Name)+"/"]
}

// update reads everything again, or without all only what looks different, and says if something changed.
func (f *Files) update(all bool) {
	f.mu.Lock()
	before := maps.Clone(f.followed)
	stamps := maps.Clone(f.stamps)
	f.mu.Unlock()
	changed := false
	for path, was := range before {
		unless := ""
		if !all && was.Err == nil {
			unless = stamps[path]
		}
		is := f.read(path, was, unless)
		f.mu.Lock()
		if _, still := f.followed[path]; still && !is.same(was) {
			f.followed[path], changed = is, true
		}
		f.mu.Unlock()
	}
	if f.rewatch() { // links lead elsewhere, or files have come: a change may have fallen between
		f.Refresh()
	}
	if changed {
		select {
		case f.changed <- struct{}{}:
		default: // one is waiting
		}
	}
}

func (o Outside) same(p Outside) bool {
	return o.IsDir == p.IsDir && maps.Equal(o.Files, p.Files) && fmt.Sprint(o.Err) == fmt.Sprint(p.Err)
}

// read reads one path, unless its stamp is the one that is given. It does not wait longer than allowed: what hangs is left
// behind, and ends when the file system answers.
func (f *Files) read(path string, was Outside, unless string) Outside {
	type answer struct {
		Outside
		stamp string
	}
	f.mu.Lock()
	stuck := f.reading[path]
	f.reading[path] = true
	f.mu.Unlock()
	if stuck { // one attempt that hangs holds a thread; there must not be more with each poll
		was.Err = f.hangs(path)
		return was
	}
	done := make(chan answer, 1)
	go func() {
		began := stamp(path) // before the contents, so that a change in between is found by the next poll
		a := answer{was, began}
		if began == "" || began != unless {
			a.Outside = readOutside(path)
		}
		f.mu.Lock()
		delete(f.reading, path)
		f.mu.Unlock()
		done <- a
	}()
	timer := time.NewTimer(f.o.Timeout)
	defer timer.Stop()
	select {
	case a := <-done:
		f.mu.Lock()
		f.stamps[path] = a.stamp
		f.mu.Unlock()
		if a.Err != nil {
			a.Files, a.IsDir = was.Files, was.IsDir
		}
		return a.Outside
	case <-timer.C:
		was.Err = f.hangs(path)
		return was
	}
}

func (f *Files) hangs(path string) error {
	return fmt.Errorf("%s: the file system has not answered for %s", path, f.o.Timeout)
}

// companions are the endings of files that HAProxy reads beside a certificate.
var companions = []string{".key", ".ocsp", ".issuer", ".sctl", ".rsa", ".ecdsa", ".dsa"}

func readOutside(path string) Outside {
	info, err := os.Stat(path)
	if err != nil {
		return Outside{Err: err}
	}
	o := Outside{Files: map[string]string{}, IsDir: info.IsDir()}
	if !o.IsDir {
		if o.Files[path], err = readCertificate(path); err != nil {
			return Outside{Err: err}
		}
		beside := []string{strings.TrimSuffix(path, filepath.Ext(path)) + ".key"} // with ssl-load-extra-del-ext
		for _, ending := range companions {
			beside = append(beside, path+ending)
		}
		for _, name := range beside {
			if text, err := readCertificate(name); err == nil && name != path {
				o.Files[name] = text
			}
		}
		return o
	}
	entries, err := os.ReadDir(path)
	if err == nil && len(entries) > MaxOutsideFiles {
		err = fmt.Errorf("%s holds more than %d files", path, MaxOutsideFiles)
	}
	if err != nil {
		return Outside{Err: err}
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		if ignored(e.Name()) {
			continue
		}
		switch text, err := readCertificate(name); {
		case err == nil:
			o.Files[name] = text
		case errors.Is(err, errNotRegular), errors.Is(err, fs.ErrNotExist): // a directory, or a link that leads nowhere
		default:
			return Outside{Err: err}
		}
	}
	return o
}

var errNotRegular = errors.New("is not a regular file")

func readCertificate(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular(): // opening a pipe would wait for its writer
		return "", fmt.Errorf("%s %w", path, errNotRegular)
	case info.Size() > MaxOutsideBytes:
		return "", fmt.Errorf("%s is longer than %d bytes", path, MaxOutsideBytes)
	}
	return readFile(path)
}
