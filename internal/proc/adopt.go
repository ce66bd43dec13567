package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// StartTime returns when a process was started, in the kernel's count. With the pid it names one process for as long as the
// machine runs: a later process may get the pid, but not with that time.
func StartTime(pid int) (uint64, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	if s.zombie() {
		return 0, os.ErrProcessDone
	}
	return s.start, nil
}

// Adopt takes over a process that an earlier program has started as the leader of a process group, and waits for it in the
// background. After an exec in place it is still a child of this process, and its State is known at the end. Otherwise the
// kernel tells only that it has ended. start is its StartTime. The error wraps os.ErrProcessDone if the process no longer runs.
func (r *Reaper) Adopt(pid int, start uint64) (*Child, error) {
	// The descriptor keeps the pid from being used again, so the time is compared after that.
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		err = os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	ended := os.NewFile(uintptr(fd), "pidfd")
	process, err := os.FindProcess(pid)
	if err == nil {
		err = r.own(pid, start)
	}
	if err != nil {
		_ = ended.Close() // nothing was written
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	c := &Child{process: process, leader: true, done: make(chan struct{})}
	go func() {
		defer close(c.done)
		defer func() { _ = ended.Close() }()
		c.state, c.err = process.Wait()
		if errors.Is(c.err, unix.ECHILD) {
			c.err = awaitEnd(fd)
		}
		r.forget(pid)
	}()
	return c, nil
}

// own keeps the sweep from collecting the process, which may be a child of this one.
func (r *Reaper) own(pid int, start uint64) error {
	if r != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	now, err := StartTime(pid)
	if err == nil && now != start {
		err = fmt.Errorf("%w, and a different one has its number", os.ErrProcessDone)
	}
	if err == nil && r != nil {
		r.owned[pid] = struct{}{}
	}
	return err
}

// awaitEnd waits for the end of a process that is not a child of this one.
func awaitEnd(pidfd int) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
