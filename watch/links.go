package watch

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxWatches bounds the directories that events are requested for; the others are polled.
const maxWatches = 1000

// steps returns the names whose change may lead a path to another file: the path, every link on the way, and what they lead
// to. certbot replaces a link in live/, Kubernetes the link ..data of a volume, others rename a file.
func steps(path string) (names []string) {
	path = filepath.Clean(path)
	names = append(names, path)
	const mostLinks = 40 // as many as Linux follows
	resolved, rest := "/", strings.Split(strings.TrimPrefix(path, "/"), "/")
	for links := 0; len(rest) > 0 && links < mostLinks; {
		next := filepath.Join(resolved, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(next)
		if err != nil { // no link, or nothing there
			resolved = next
			continue
		}
		links++
		names = append(names, next)
		if !filepath.IsAbs(target) {
			target = filepath.Join(resolved, target)
		}
		rest = append(strings.Split(strings.TrimPrefix(filepath.Clean(target), "/"), "/"), rest...)
		resolved = "/"
	}
	if resolved != path {
		names = append(names, resolved)
	}
	return names
}

// rewatch requests events of the directories in which the steps of the followed paths are, and of no others. It reports whether
// there is a new one.
func (f *Files) rewatch() (added bool) {
	f.mu.Lock()
	paths := maps.Clone(f.followed)
	maps.DeleteFunc(paths, func(path string, _ Outside) bool { return f.reading[path] }) // its file system hangs
	f.mu.Unlock()
	relevant, dirs := map[string]bool{}, map[string]bool{}
	add := func(path string) {
		for _, name := range steps(path) {
			relevant[name] = true
			dirs[filepath.Dir(name)] = true
		}
	}
	for path, o := range paths {
		add(path)
		for name := range o.Files {
			add(name)
		}
		if !o.IsDir {
			relevant[path+".key"] = true // it may come later
			continue
		}
		for _, name := range steps(path) {
			relevant[name+"/"], dirs[name] = true, true
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.relevant = relevant
	if f.watcher == nil {
		return false
	}
	for dir := range f.dirs {
		if !dirs[dir] {
			_ = f.watcher.Remove(dir) // it may be gone
			delete(f.dirs, dir)
		}
	}
	for dir := range dirs {
		known := f.dirs[dir]
		f.watchDir(dir)
		added = added || !known && f.dirs[dir]
	}
	return added
}

// watchDir requests events of a directory. Doing so again is cheap, and necessary when a different directory took its name.
func (f *Files) watchDir(dir string) {
	if f.watcher == nil || !f.dirs[dir] && len(f.dirs) >= maxWatches {
		return
	}
	if err := f.watcher.Add(dir); err != nil {
		f.log.Debug("no file events for a directory", "dir", dir, "err", err)
		return
	}
	f.dirs[dir] = true
}

// stamp identifies the state of a path without reading contents: file by file its identity, size and times. It is empty when
// the state cannot be told from a later one, because something has just been written.
func stamp(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "error " + err.Error()
	}
	names := []string{path, path + ".key"}
	if info.IsDir() {
		entries, err := os.ReadDir(path)
		if err != nil {
			return "error " + err.Error()
		}
		for _, e := range entries {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	var b strings.Builder
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		if time.Since(info.ModTime()) < 2*time.Second {
			return ""
		}
		fmt.Fprintf(&b, "%s %d %d %v %s\n", name, info.Size(), info.ModTime().UnixNano(), info.Mode(), identity(info))
	}
	return b.String()
}

// identity is the inode: a renamed file may have the size and the time of the one before.
func identity(info os.FileInfo) string {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprint(s.Dev, " ", s.Ino)
	}
	return ""
}
