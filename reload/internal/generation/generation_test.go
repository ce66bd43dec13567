package generation_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/generation"
)

func files(t *testing.T, text string) haproxy.Files {
	t.Helper()
	f, err := haproxy.NewFiles(map[string][]byte{haproxy.ConfigFile: []byte(text), "maps/a.map": []byte("k v\n")})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t *testing.T, dir string) *generation.Store {
	t.Helper()
	s, err := generation.Open(dir, filepath.Join(dir, "run"), []byte("# own\n"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func add(t *testing.T, s *generation.Store, f haproxy.Files, g generation.Generation) int64 {
	t.Helper()
	number, err := s.Write(f)
	if err != nil {
		t.Fatal(err)
	}
	g.Number, g.Digest = number, f.Digest()
	if err := s.Seal(g); err != nil {
		t.Fatal(err)
	}
	return number
}

func TestAGenerationIsReadBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	f := files(t, "one\n")
	n := add(t, s, f, generation.Generation{Revision: 5, Kind: generation.KindReload, TemplateSet: 3, Changes: 2})
	if err := s.Activate(n); err != nil {
		t.Fatal(err)
	}
	g, read, err := generation.Read(dir, n)
	if err != nil || !read.Equal(f) || g.Revision != 5 || g.Kind != generation.KindReload || g.TemplateSet != 3 || g.Changes != 2 || !g.Current {
		t.Errorf("got %+v, %v", g, err)
	}
	if current, err := generation.Current(dir); err != nil || !current.Equal(f) {
		t.Errorf("the current one: %v", err)
	}
	path := filepath.Join(generation.Path(dir, n), haproxy.ConfigFile)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := s.Verify(n, f); err != nil {
		t.Errorf("verify: %v", err)
	}
	if err := os.WriteFile(path, []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := generation.Read(dir, n); err == nil {
		t.Error("changed files are read without an error")
	}
	if err := s.Verify(n, f); err == nil {
		t.Error("changed files are verified")
	}
	if _, _, err := generation.Read(dir, 4711); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a generation that does not exist: %v", err)
	}
}

func TestOpenRemovesWhatWasNotSealed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	sealed := add(t, s, files(t, "one\n"), generation.Generation{})
	unsealed, err := s.Write(files(t, "two\n"))
	if err != nil || unsealed == sealed {
		t.Fatalf("%d, %v", unsealed, err)
	}
	if _, err := generation.Open(dir, filepath.Join(dir, "run"), nil); err == nil || !strings.Contains(err.Error(), "another nuncio uses it") {
		t.Errorf("a second owner: %v", err)
	}
	s.Close()
	open(t, dir)
	all, err := generation.List(dir)
	if err != nil || len(all) != 1 || all[0].Number != sealed {
		t.Errorf("got %+v, %v", all, err)
	}
	if _, err := os.Stat(generation.Path(dir, unsealed)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the unsealed one: %v", err)
	}
}

// Rollback, history and diff read the generations. Before, ten changes of endpoints removed every reload.
func TestABusyDayKeepsReloadsAndHours(t *testing.T) {
	t.Parallel()
	const keep = 10
	begin := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	var all []generation.Generation
	number := int64(0)
	add := func(kind generation.Kind, at time.Time) {
		number++
		for i := range all {
			all[i].Current = false
		}
		all = append(all, generation.Generation{Number: number, Kind: kind, Created: at, Current: true})
		retained := generation.Retained(all, keep, at)
		var left []generation.Generation
		for _, g := range all {
			if retained[g.Number] {
				left = append(left, g)
			}
		}
		if all = left; len(all) > keep+10+24+1 {
			t.Fatalf("%d generations stay at %s", len(all), at)
		}
	}
	for i := range 12 {
		add(generation.KindReload, begin.Add(time.Duration(i)*time.Minute))
	}
	end := begin.Add(25 * time.Hour)
	for at := begin.Add(time.Hour); at.Before(end); at = at.Add(13 * time.Second) {
		add(generation.KindEndpoints, at)
	}
	reloads, hours := 0, map[time.Time]bool{}
	for _, g := range all {
		if g.Kind == generation.KindReload {
			reloads++
		}
		hours[g.Created.Truncate(time.Hour)] = true
	}
	if reloads != 10 || len(hours) < 24 {
		t.Errorf("%d reloads and %d hours stay", reloads, len(hours))
	}
	newest := all[len(all)-keep:]
	if newest[0].Number != number-keep+1 || newest[keep-1].Number != number {
		t.Errorf("the newest are %+v", newest)
	}
}

func TestPruneKeepsTheCurrentGeneration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	old := time.Now().Add(-48 * time.Hour)
	first := add(t, s, files(t, "first\n"), generation.Generation{Kind: generation.KindEndpoints, Created: old})
	if err := s.Activate(first); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		add(t, s, files(t, "next\n"), generation.Generation{Kind: generation.KindEndpoints, Created: old})
	}
	if err := s.Prune(2); err != nil {
		t.Fatal(err)
	}
	all, err := generation.List(dir)
	if err != nil || len(all) != 3 || all[0].Number != first || !all[0].Current || all[2].Number != 5 {
		t.Errorf("got %+v, %v", all, err)
	}
}

func TestSeveralGoroutinesMayWrite(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	f := files(t, "one\n")
	numbers := make(chan int64, 20)
	for range cap(numbers) {
		go func() {
			n, err := s.Write(f)
			if err != nil {
				t.Error(err)
			}
			numbers <- n
		}()
	}
	seen := map[int64]bool{}
	for range cap(numbers) {
		seen[<-numbers] = true
	}
	if len(seen) != cap(numbers) {
		t.Errorf("%d numbers for %d generations", len(seen), cap(numbers))
	}
}

// A thousand certificates must not be written and synced for each generation.
func TestUnchangedFilesAreSharedWithTheGenerationBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir)
	first := add(t, s, files(t, "one\n"), generation.Generation{})
	if err := s.Activate(first); err != nil {
		t.Fatal(err)
	}
	inode := func(number int64, name string) os.FileInfo {
		info, err := os.Stat(filepath.Join(generation.Path(dir, number), name))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	second := add(t, s, files(t, "two\n"), generation.Generation{})
	if !os.SameFile(inode(first, "maps/a.map"), inode(second, "maps/a.map")) || os.SameFile(inode(first, haproxy.ConfigFile), inode(second, haproxy.ConfigFile)) {
		t.Error("want the map shared and the configuration not")
	}
	// One that was changed from outside does not spread.
	if err := os.WriteFile(filepath.Join(generation.Path(dir, first), "maps/a.map"), []byte("k x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	third := add(t, s, files(t, "three\n"), generation.Generation{})
	if os.SameFile(inode(first, "maps/a.map"), inode(third, "maps/a.map")) {
		t.Error("a changed file is shared")
	}
	if _, _, err := generation.Read(dir, third); err != nil {
		t.Error(err)
	}
}
