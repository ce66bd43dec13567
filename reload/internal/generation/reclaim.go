package generation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTaken means that the state directory was deleted, and that another nuncio has it since.
var ErrTaken = errors.New("another nuncio has taken the state directory since it was deleted; nothing is written there: " +
	"end that one, or give each one its own")

// Reclaim takes the lock again if its file is no longer the one in the directory, and makes the directory for that. It reports
// whether it was so. Until it is called, a second nuncio would be let in.
func (s *Store) Reclaim() (bool, error) {
	path := filepath.Join(s.dir, lockFile)
	if found, err := os.Stat(path); err == nil {
		if held, err := s.lock.Stat(); err != nil || os.SameFile(held, found) {
			return false, nil // an error: nothing is known
		}
	}
	if err := os.MkdirAll(filepath.Join(s.dir, generationsDir), 0o700); err != nil {
		return true, fmt.Errorf("make the deleted state directory again: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return true, fmt.Errorf("make the deleted state directory again: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // it is only a second view of a lock that somebody has
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = ErrTaken
		}
		s.setLost(err)
		return true, err
	}
	s.setLost(nil)
	old := s.lock
	s.lock = f
	_ = old.Close() // its file has no name any more
	return true, nil
}

func (s *Store) setLost(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
}

// SetOwn changes the content of OwnConfigFile for the generations to come.
func (s *Store) SetOwn(own []byte) { s.own = own }

// Own returns that content.
func (s *Store) Own() []byte { return s.own }
