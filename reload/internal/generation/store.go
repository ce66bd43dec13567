package generation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"nuncio/internal/haproxy"
)

const lockPatience = 500 * time.Millisecond

// Store is the state directory, held by one process. Its methods may be called by several goroutines: a generation that one
// of them writes has a number of its own and does not count for the others until it is sealed.
type Store struct {
	dir  string
	own  []byte // the content of OwnConfigFile
	lock *os.File
	mu   sync.Mutex // held to choose a number, to swap the link and to remove
	lost error      // why nothing may be written; see Reclaim
}

// Open makes the state directory and the one for sockets, takes the lock and removes what a crash left behind. own is the
// content of OwnConfigFile.
func Open(dir, runDir string, own []byte) (*Store, error) {
	for _, d := range []string{dir, filepath.Join(dir, generationsDir), runDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w; it must be writable and survive a restart of the container", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := lock(int(f.Fd())); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s: another nuncio uses it; give each one its own", dir)
		}
		return nil, fmt.Errorf("state directory %s: lock: %w", dir, err)
	}
	s := &Store{dir: dir, own: own, lock: f}
	if err := s.clean(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("state directory %s: remove leftovers: %w", dir, err)
	}
	return s, nil
}

// lock takes the lock. A command that a killed nuncio was just about to start, a copy of it with all its files, may have it for
// a moment longer.
func lock(fd int) error {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockPatience / 20) {
		if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return err
		}
	}
}

// Close gives the lock back, also if a command that is being started has a copy of it.
func (s *Store) Close() {
	_ = unix.Flock(int(s.lock.Fd()), unix.LOCK_UN) // otherwise the end of the last copy does it
	_ = s.lock.Close()
}

// clean removes generations that have no manifest: the ones a crash cut short before they were checked.
func (s *Store) clean() error {
	if err := removeFile(filepath.Join(s.dir, pendingLink)); err != nil {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, generationsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, generationsDir, e.Name())
		if _, err := readManifest(path); err != nil {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// create makes the directory of a new generation and returns its number.
func (s *Store) create() (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		return 0, s.lost
	}
	dir := filepath.Join(s.dir, generationsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil { // an operator may have removed it
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var last int64
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil {
			last = max(last, n)
		}
	}
	return last + 1, os.Mkdir(Path(s.dir, last+1), 0o700)
}

// Write puts files into a new generation, synced, without a manifest: until Seal adds one the generation does not count.
// On an error nothing is left.
func (s *Store) Write(files haproxy.Files) (number int64, err error) {
	number, err = s.create()
	if err != nil {
		return 0, fmt.Errorf("write generation: %w", err)
	}
	earlier := ""
	if current, err := currentNumber(s.dir); err == nil && current != 0 {
		earlier = Path(s.dir, current)
	}
	if err := WriteFiles(Path(s.dir, number), earlier, files, s.own); err != nil {
		_ = os.RemoveAll(Path(s.dir, number)) // without a manifest it is removed at the next start
		return 0, fmt.Errorf("write generation %d: %w", number, err)
	}
	return number, nil
}

// Seal marks a generation as checked.
func (s *Store) Seal(g Generation) error {
	dir := Path(s.dir, g.Number)
	b, err := json.MarshalIndent(g, "", "  ")
	if err == nil {
		err = writeSynced(filepath.Join(dir, ManifestFile), append(b, '\n'))
	}
	if err == nil { // the directory's own name has to be on disk before a link leads to it
		err = errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
	}
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// Switch makes a generation the current one and verifies it, as HAProxy would read it now.
func (s *Store) Switch(number int64, files haproxy.Files) error {
	if err := s.Activate(number); err != nil {
		return err
	}
	return s.Verify(number, files)
}

// Activate makes a generation the current one, by rename; 0 means none.
func (s *Store) Activate(number int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	link, pending := filepath.Join(s.dir, CurrentLink), filepath.Join(s.dir, pendingLink)
	err := s.lost
	if err != nil {
		return fmt.Errorf("make generation %d current: %w", number, err)
	}
	if number == 0 {
		err = removeFile(link)
	} else if err = removeFile(pending); err == nil {
		err = os.Symlink(filepath.Join(generationsDir, strconv.FormatInt(number, 10)), pending)
		if err == nil {
			err = os.Rename(pending, link)
		}
	}
	if err == nil {
		err = syncDir(s.dir)
	}
	if err != nil {
		return fmt.Errorf("make generation %d current: %w", number, err)
	}
	return nil
}

// removeFile removes a file that need not exist.
func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Current returns the number of the current generation; 0 if there is none.
func (s *Store) Current() (int64, error) { return currentNumber(s.dir) }

// Remove deletes a generation.
func (s *Store) Remove(number int64) error { return os.RemoveAll(Path(s.dir, number)) }

// Prune deletes the generations that Retained does not name.
func (s *Store) Prune(keep int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := List(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	retained := Retained(all, keep, time.Now())
	for _, g := range all {
		if !retained[g.Number] {
			errs = append(errs, s.Remove(g.Number))
		}
	}
	return errors.Join(errs...)
}

// Verify compares what HAProxy would read with what was checked, byte for byte.
func (s *Store) Verify(number int64, files haproxy.Files) error {
	current, err := currentNumber(s.dir)
	if err != nil {
		return err
	}
	if current != number {
		return fmt.Errorf("the current generation is %d instead of %d: something else writes to %s", current, number, s.dir)
	}
	return s.Compare(number, files)
}

// Compare is Verify for a generation that need not be the current one.
func (s *Store) Compare(number int64, files haproxy.Files) error {
	_, found, err := Read(s.dir, number)
	if err != nil {
		return err
	}
	own, err := os.ReadFile(filepath.Join(Path(s.dir, number), OwnConfigFile))
	if err != nil {
		return err
	}
	if !found.Equal(files) || !bytes.Equal(own, s.own) {
		return fmt.Errorf("generation %d is not what was written: something else writes to %s", number, s.dir)
	}
	return nil
}
