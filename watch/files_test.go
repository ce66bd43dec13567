package watch_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/watch"
)

// followed runs a watch.Files whose polls come too late for a test to see them.
func followed(t *testing.T, o watch.FilesOptions) *watch.Files {
	t.Helper()
	if o.Poll == 0 {
		o.Poll = time.Hour
	}
	f := watch.NewFiles(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestFilesAreFollowedThroughEveryWayToRenewThem replaces a file as programs do that renew certificates. Each change must be
// seen by an event.
func TestFilesAreFollowedThroughEveryWayToRenewThem(t *testing.T) {
	t.Parallel()
	type place struct{ dir string }
	write := func(path, text string) error {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, []byte(text), 0o600)
	}
	link := func(path, target string) error {
		_ = os.MkdirAll(filepath.Dir(path), 0o755) // Symlink reports it
		fresh := path + "_tmp"
		if err := os.Symlink(target, fresh); err != nil {
			return err
		}
		return os.Rename(fresh, path)
	}
	for name, c := range map[string]struct {
		path  string // to follow, below the directory
		file  string // that has the text; path if empty
		first func(dir string) error
		renew func(dir, text string, n int) error
	}{
		"written in place": {
			path:  "site.pem",
			first: func(dir string) error { return write(dir+"/site.pem", "0") },
			renew: func(dir, text string, _ int) error { return write(dir+"/site.pem", text) },
		},
		"renamed over": {
			path:  "site.pem",
			first: func(dir string) error { return write(dir+"/site.pem", "0") },
			renew: func(dir, text string, _ int) error {
				if err := write(dir+"/new", text); err != nil {
					return err
				}
				return os.Rename(dir+"/new", dir+"/site.pem")
			},
		},
		"certbot's live and archive": {
			path: "live/x/site.pem",
			first: func(dir string) error {
				if err := write(dir+"/archive/x/site0.pem", "0"); err != nil {
					return err
				}
				return link(dir+"/live/x/site.pem", "../../archive/x/site0.pem")
			},
			renew: func(dir, text string, n int) error {
				if err := write(fmt.Sprintf("%s/archive/x/site%d.pem", dir, n), text); err != nil {
					return err
				}
				return link(dir+"/live/x/site.pem", fmt.Sprintf("../../archive/x/site%d.pem", n))
			},
		},
		"written where the link leads": {
			path: "live/site.pem",
			first: func(dir string) error {
				if err := write(dir+"/archive/site.pem", "0"); err != nil {
					return err
				}
				return link(dir+"/live/site.pem", "../archive/site.pem")
			},
			renew: func(dir, text string, _ int) error { return write(dir+"/archive/site.pem", text) },
		},
		"a volume of Kubernetes, one file": {
			path: "tls/tls.pem",
			first: func(dir string) error {
				if err := write(dir+"/tls/..0/tls.pem", "0"); err != nil {
					return err
				}
				if err := link(dir+"/tls/..data", "..0"); err != nil {
					return err
				}
				return link(dir+"/tls/tls.pem", "..data/tls.pem")
			},
			renew: func(dir, text string, n int) error {
				if err := write(fmt.Sprintf("%s/tls/..%d/tls.pem", dir, n), text); err != nil {
					return err
				}
				return link(dir+"/tls/..data", fmt.Sprintf("..%d", n))
			},
		},
		"a volume of Kubernetes, the directory": {
			path: "tls", file: "tls/tls.pem",
			first: func(dir string) error {
				if err := write(dir+"/tls/..0/tls.pem", "0"); err != nil {
					return err
				}
				if err := link(dir+"/tls/..data", "..0"); err != nil {
					return err
				}
				return link(dir+"/tls/tls.pem", "..data/tls.pem")
			},
			renew: func(dir, text string, n int) error {
				if err := write(fmt.Sprintf("%s/tls/..%d/tls.pem", dir, n), text); err != nil {
					return err
				}
				return link(dir+"/tls/..data", fmt.Sprintf("..%d", n))
			},
		},
		"a directory of links": {
			path: "certs", file: "certs/site.pem",
			first: func(dir string) error {
				if err := write(dir+"/elsewhere/site.pem", "0"); err != nil {
					return err
				}
				return link(dir+"/certs/site.pem", "../elsewhere/site.pem")
			},
			renew: func(dir, text string, _ int) error {
				if err := write(dir+"/elsewhere/new", text); err != nil {
					return err
				}
				return os.Rename(dir+"/elsewhere/new", dir+"/elsewhere/site.pem")
			},
		},
		"the directory replaced": {
			path: "certs", file: "certs/site.pem",
			first: func(dir string) error { return write(dir+"/certs/site.pem", "0") },
			renew: func(dir, text string, n int) error {
				if err := write(dir+"/fresh/site.pem", text); err != nil {
					return err
				}
				if err := os.Rename(dir+"/certs", fmt.Sprintf("%s/old%d", dir, n)); err != nil {
					return err
				}
				return os.Rename(dir+"/fresh", dir+"/certs")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := place{t.TempDir()}
			if err := c.first(p.dir); err != nil {
				t.Fatal(err)
			}
			file := c.file
			if file == "" {
				file = c.path
			}
			f := followed(t, watch.FilesOptions{})
			path := filepath.Join(p.dir, c.path)
			for n := range 4 {
				want := strings.Repeat(fmt.Sprint(n), 3)
				if n == 0 {
					want = "0"
				} else if err := c.renew(p.dir, want, n); err != nil {
					t.Fatal(err)
				}
				testkit.Eventually(t, 10*time.Second, func() error {
					o := f.Read([]string{path})[path]
					if got := o.Files[filepath.Join(p.dir, file)]; got != want || o.Err != nil {
						return fmt.Errorf("got %q, error %q; want %q", got, fmt.Sprint(o.Err), want)
					}
					return nil
				})
			}
		})
	}
}

func TestFilesKeepWhatTheyHadWhileAPathCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, other := filepath.Join(dir, "a.pem"), filepath.Join(dir, "b.pem")
	for _, p := range []string{path, path + ".key", other} {
		if err := os.WriteFile(p, []byte(p), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := followed(t, watch.FilesOptions{})
	if o := f.Read([]string{path})[path]; o.Files[path] != path || o.Files[path+".key"] != path+".key" || o.Err != nil || o.IsDir {
		t.Fatalf("got %+v", o)
	}
	for name, spoil := range map[string]func() error{
		"gone": func() error { return os.Remove(path) },
		"too large": func() error {
			return os.WriteFile(path, make([]byte, watch.MaxOutsideBytes+1), 0o600)
		},
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, 10*time.Second, func() error {
			if o := f.Read([]string{path})[path]; o.Err == nil || o.Files[path] != path {
				return fmt.Errorf("%s: got an error %q and %d bytes", name, fmt.Sprint(o.Err), len(o.Files[path]))
			}
			return nil
		})
	}
	// A path that is no longer asked for is forgotten, and a new one is read at once.
	if o := f.Read([]string{other})[other]; o.Files[other] != other {
		t.Errorf("got %+v", o)
	}
	if o := f.Read([]string{path})[path]; o.Err == nil || len(o.Files) > 0 {
		t.Errorf("after it was forgotten: %+v", o)
	}
}

// A pipe that nobody writes to stands for a file system that hangs: it must hold nothing up.
func TestFilesDoNotWaitForAPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := followed(t, watch.FilesOptions{})
	began := time.Now()
	if o := f.Read([]string{filepath.Join(dir, "pipe")})[filepath.Join(dir, "pipe")]; o.Err == nil {
		t.Error("a pipe was read")
	}
	if o := f.Read([]string{dir})[dir]; o.Err != nil || len(o.Files) > 0 {
		t.Errorf("its directory: %+v", o)
	}
	if took := time.Since(began); took > watch.DefaultFilesTimeout {
		t.Errorf("it took %v", took)
	}
}

// Where no events come, as from some network file systems, the files are looked at from time to time.
func TestFilesArePolled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "site.pem")
	old := time.Now().Add(-time.Hour)
	write := func(text string, at time.Time) {
		t.Helper()
		err := os.WriteFile(path+".new", []byte(text), 0o600)
		if err == nil {
			err = os.Chtimes(path+".new", at, at)
		}
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("one", old)
	f := watch.NewFiles(watch.FilesOptions{}) // Run does not run: there are no events
	for _, p := range []string{path, dir} {
		f.Read([]string{path, dir})
		f.Poll()
		// The same size and times: only the inode tells.
		for _, text := range []string{"two", "six"} {
			write(text, old)
			f.Poll()
			if got := f.Read([]string{path, dir})[p].Files[path]; got != text {
				t.Errorf("%s: got %q, want %q", p, got, text)
			}
			select {
			case <-f.Changed():
			default:
				t.Errorf("%s: no sign of the change to %q", p, text)
			}
		}
	}
}
