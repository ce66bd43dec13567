package watch_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"nuncio/internal/testkit"
	"nuncio/watch"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadDirTakesFilesAndLeavesWhatEditorsLeave(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"haproxy.cfg.tmpl": "a", "maps/hosts.map.tmpl": "b", "_partial.tmpl": "c", "empty": "",
		".hidden": "x", ".git/config": "x", "haproxy.cfg.tmpl~": "x", "haproxy.cfg.tmpl.swp": "x", "4913": "x", "#a#": "x", "..data/x": "x",
	})
	must(t, unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	must(t, os.Symlink("haproxy.cfg.tmpl", filepath.Join(dir, "link")))
	got, err := watch.ReadDir(dir)
	must(t, err)
	want := map[string]string{"haproxy.cfg.tmpl": "a", "maps/hosts.map.tmpl": "b", "_partial.tmpl": "c", "empty": "", "link": "a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ReadDir (-want +got):\n%s", diff)
	}
}

func TestReadDirRefusesWhatIsNoTemplateDirectory(t *testing.T) {
	t.Parallel()
	file, many, big, loop, dangling := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	write(t, file, map[string]string{"f": ""})
	for i := range watch.MaxFiles + 1 {
		write(t, many, map[string]string{fmt.Sprintf("f%d", i): ""})
	}
	write(t, big, map[string]string{"f": strings.Repeat("x", watch.MaxFileBytes+1)})
	must(t, os.Symlink(".", filepath.Join(loop, "again")))
	must(t, os.Symlink("nothing", filepath.Join(dangling, "link")))
	for dir, want := range map[string]string{
		filepath.Join(file, "f"): "is not a directory", file + "/none": "no such file", many: "more than 1000 files",
		big: "longer than 4194304 bytes", loop: "a link to a directory that contains it", dangling: "no such file",
	} {
		if _, err := watch.ReadDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadDir(%s) = %v, want %q", dir, err, want)
		}
	}
}

// follow runs a Dir with events only: the poll is too slow to help.
func follow(t *testing.T, o watch.DirOptions) (*watch.Dir, <-chan map[string]string) {
	t.Helper()
	if o.Poll == 0 {
		o.Poll = time.Hour
	}
	d := watch.NewDir(o)
	out := make(chan map[string]string)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx, out) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return d, out
}

// expect waits for the given files; it accepts others before them.
func expect(t *testing.T, out <-chan map[string]string, want map[string]string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	var got map[string]string
	for {
		select {
		case got = <-out:
			if maps.Equal(got, want) {
				return
			}
		case <-deadline:
			t.Fatalf("not delivered (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}

func TestDirDeliversEveryKindOfChange(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "templates")
	write(t, dir, map[string]string{"a": "1"})
	_, out := follow(t, watch.DirOptions{Dir: dir + "/"})
	expect(t, out, map[string]string{"a": "1"})

	write(t, dir, map[string]string{"a": "2"})
	expect(t, out, map[string]string{"a": "2"})

	write(t, dir, map[string]string{".a.new": "3"}) // an editor's write and rename
	must(t, os.Rename(filepath.Join(dir, ".a.new"), filepath.Join(dir, "a")))
	expect(t, out, map[string]string{"a": "3"})

	write(t, dir, map[string]string{"new/deep/b": "1"})
	expect(t, out, map[string]string{"a": "3", "new/deep/b": "1"})
	write(t, dir, map[string]string{"new/deep/b": "2"})
	expect(t, out, map[string]string{"a": "3", "new/deep/b": "2"})

	must(t, os.RemoveAll(filepath.Join(dir, "new")))
	expect(t, out, map[string]string{"a": "3"})

	// The directory itself is replaced, and the new one is followed.
	write(t, base, map[string]string{"next/a": "4"})
	must(t, os.Rename(dir, filepath.Join(base, "old")))
	must(t, os.Rename(filepath.Join(base, "next"), dir))
	expect(t, out, map[string]string{"a": "4"})
	write(t, dir, map[string]string{"a": "5"})
	expect(t, out, map[string]string{"a": "5"})
}

func TestDirFollowsTheLinksOfKubernetes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	publish := func(version, text string) {
		write(t, dir, map[string]string{"..v" + version + "/a": text, "..v" + version + "/maps/m": text})
		must(t, os.Symlink("..v"+version, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	publish("1", "1")
	must(t, os.Symlink("..data/a", filepath.Join(dir, "a")))
	must(t, os.Symlink("..data/maps", filepath.Join(dir, "maps")))
	_, out := follow(t, watch.DirOptions{Dir: dir})
	expect(t, out, map[string]string{"a": "1", "maps/m": "1"})
	publish("2", "2")
	expect(t, out, map[string]string{"a": "2", "maps/m": "2"})
	must(t, os.RemoveAll(filepath.Join(dir, "..v1")))
	publish("3", "3")
	expect(t, out, map[string]string{"a": "3", "maps/m": "3"})
}

func TestDirSwappedByALinkIsFollowed(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	write(t, base, map[string]string{"v1/a": "1", "v2/a": "2"})
	dir := filepath.Join(base, "current")
	must(t, os.Symlink("v1", dir))
	_, out := follow(t, watch.DirOptions{Dir: dir})
	expect(t, out, map[string]string{"a": "1"})
	must(t, os.Symlink("v2", dir+".new"))
	must(t, os.Rename(dir+".new", dir))
	expect(t, out, map[string]string{"a": "2"})
	write(t, base, map[string]string{"v2/a": "3"})
	expect(t, out, map[string]string{"a": "3"})
}

func TestDirThatVanishesKeepsTheLastFilesAndIsLoggedOnce(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir := filepath.Join(base, "templates")
	write(t, dir, map[string]string{"a": "1"})
	var log lines
	_, out := follow(t, watch.DirOptions{Dir: dir, Poll: 20 * time.Millisecond, Logger: slog.New(&log)})
	expect(t, out, map[string]string{"a": "1"})
	must(t, os.RemoveAll(dir))
	testkit.Eventually(t, 20*time.Second, func() error { return log.has("templates cannot be read, keeping the last ones", 1) })
	write(t, base, map[string]string{"next/a": "2"})
	must(t, os.Rename(filepath.Join(base, "next"), dir))
	if got := <-out; !maps.Equal(got, map[string]string{"a": "2"}) {
		t.Errorf("delivered %v while the directory was away", got)
	}
	if err := log.has("templates cannot be read, keeping the last ones", 1); err != nil {
		t.Error(err)
	}
	if err := log.has("templates can be read again", 1); err != nil {
		t.Error(err)
	}
}

func TestDirFindsChangesByPollAndByRefresh(t *testing.T) {
	t.Parallel()
	// A link to a file outside: it changes there, and the directory sees no event.
	outside, dir := t.TempDir(), t.TempDir()
	write(t, outside, map[string]string{"a": "1"})
	must(t, os.Symlink(filepath.Join(outside, "a"), filepath.Join(dir, "a")))
	_, polled := follow(t, watch.DirOptions{Dir: dir, Poll: 20 * time.Millisecond})
	refreshed, waiting := follow(t, watch.DirOptions{Dir: dir})
	expect(t, polled, map[string]string{"a": "1"})
	expect(t, waiting, map[string]string{"a": "1"})
	write(t, outside, map[string]string{"a": "2"})
	expect(t, polled, map[string]string{"a": "2"})
	refreshed.Refresh()
	expect(t, waiting, map[string]string{"a": "2"})
}

// A checkout that takes a moment is seen as a whole. The wait for one that never settles has an end.
func TestDirIsReadWhenItHasSettled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, out := follow(t, watch.DirOptions{Dir: dir, Settle: time.Hour}) // what ends the wait is its limit of a second
	expect(t, out, map[string]string{})
	for version := 0; ; version++ {
		want := map[string]string{}
		for i := range 100 {
			want[fmt.Sprintf("f%d", i)] = fmt.Sprint(version)
		}
		first := make(chan map[string]string, 1)
		go func() {
			select {
			case got := <-out:
				first <- got
			case <-time.After(20 * time.Second):
				first <- nil
			}
		}()
		began := time.Now()
		write(t, dir, want)
		took, got := time.Since(began), <-first
		switch whole := maps.Equal(got, want); {
		case whole:
			return
		case took < 500*time.Millisecond || version == 50:
			t.Fatalf("half of a change was delivered (-want +got):\n%s", cmp.Diff(want, got))
		}
		expect(t, out, want) // the machine was too busy for a change at one stroke
	}
}

func TestDirDeliversNothingWhileTheContentStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	d, out := follow(t, watch.DirOptions{Dir: dir})
	expect(t, out, map[string]string{"a": "1"})
	for range 3 {
		write(t, dir, map[string]string{"a": "1"})
		d.Refresh()
	}
	write(t, dir, map[string]string{"b": "1"})
	if got := <-out; len(got) != 2 {
		t.Errorf("delivered %v though nothing had changed", got)
	}
}

// TestDirSendsTheNewestToABusyReader has a reader that comes back late.
func TestDirSendsTheNewestToABusyReader(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	d, out := follow(t, watch.DirOptions{Dir: dir, Poll: 10 * time.Millisecond})
	expect(t, out, map[string]string{"a": "1"})
	for i := range 5 {
		write(t, dir, map[string]string{"a": fmt.Sprint("x", i)})
		d.Refresh()
	}
	expect(t, out, map[string]string{"a": "x4"})
}
