package proc

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sweepInterval bounds how long a zombie can stay when its SIGCHLD was merged with another one.
const sweepInterval = 2 * time.Second

// Options configure a Reaper.
type Options struct {
	// Logger may be nil.
	Logger *slog.Logger
}

// Reaper starts processes and collects the orphans of this process tree. Create it with NewReaper; a nil
// *Reaper starts processes and collects nothing.
type Reaper struct {
	log *slog.Logger

	// mu is held while a process is started, until its pid stands in owned: otherwise a child that ends at
	// once would look like an orphan to the sweep.
	mu    sync.Mutex
	owned map[int]struct{}
}

// NewReaper makes a Reaper; it starts nothing.
func NewReaper(opts Options) *Reaper {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reaper{log: opts.Logger, owned: map[int]struct{}{}}
}

// IsReaper says whether orphans become children of this process: it is PID 1, or it has set
// PR_SET_CHILD_SUBREAPER.
func IsReaper() bool {
	if os.Getpid() == 1 {
		return true
	}
	var set int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0)
	return err == nil && set != 0
}

// Run collects orphans until ctx ends. Where this process is not a reaper it only waits. It returns an error
// when /proc cannot be read, because then zombies would pile up unseen.
func (r *Reaper) Run(ctx context.Context) error {
	if !IsReaper() {
		<-ctx.Done()
		return nil
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		if err := r.sweep(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-children:
		case <-tick.C:
		}
	}
}

// sweep waits for every zombie child that was not started here. It asks for each pid by name, never for "any
// child": a wait for any child would take exit statuses away from os/exec.
func (r *Reaper) sweep() error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		return fmt.Errorf("look for orphans in /proc: nothing there; mount the proc file system in this container")
	}
	self := os.Getpid()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, path := range stats {
		pid, ok := zombieOf(path, self)
		if !ok {
			continue
		}
		if _, own := r.owned[pid]; own {
			continue
		}
		var status unix.WaitStatus
		if got, err := unix.Wait4(pid, &status, unix.WNOHANG, nil); err == nil && got == pid {
			r.log.Debug("orphan reaped", "pid", pid, "exit_code", waitCode(status))
		}
	}
	return nil
}

// zombieOf reads one /proc/<pid>/stat and says whether it is a zombie whose parent is the given process.
func zombieOf(path string, parent int) (int, bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, false // it is gone already
	}
	// "pid (comm) state ppid ...": comm may hold spaces and parentheses, so look behind the last one.
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return 0, false
	}
	fields := bytes.Fields(b[end+1:])
	if len(fields) < 2 || string(fields[0]) != "Z" || string(fields[1]) != strconv.Itoa(parent) {
		return 0, false
	}
	pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
	return pid, err == nil
}

func waitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
