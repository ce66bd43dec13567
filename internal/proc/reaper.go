package proc

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sweepInterval limits how long a zombie stays if its SIGCHLD was merged with that of a different process.
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

	// mu is locked while a process is started, until its pid is in owned: otherwise a child that ends immediately would
	// look like an orphan to the sweep.
	mu    sync.Mutex
	owned map[int]struct{}
}

// NewReaper returns a Reaper. It starts nothing.
func NewReaper(opts Options) *Reaper {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Reaper{log: opts.Logger, owned: map[int]struct{}{}}
}

// IsReaper reports whether orphans become children of this process: it is PID 1, or it has set
// PR_SET_CHILD_SUBREAPER.
func IsReaper() bool {
	if os.Getpid() == 1 {
		return true
	}
	var set int32
	err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&set)), 0, 0, 0)
	return err == nil && set != 0
}

// Run collects orphans until ctx ends. If this process is not a reaper, it only waits. It returns an error when it
// cannot read /proc, because zombies would then accumulate unnoticed.
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

// sweep reaps every zombie child that was not started here. It waits for each pid by number: a wait for any child would
// take exit statuses away from os/exec.
func (r *Reaper) sweep() error {
	all, err := pids()
	if err != nil {
		return fmt.Errorf("look for orphans: %w", err)
	}
	self := os.Getpid()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, pid := range all {
		s, err := readStat(pid)
		if err != nil || !s.zombie() || s.parent != self { // an error: it has gone already
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

func waitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}
