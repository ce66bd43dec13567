package proc

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Child is one process that was started or adopted here. It has exactly one waiter, inside this package.
type Child struct {
	process *os.Process
	leader  bool // of a process group of its own
	done    chan struct{}
	state   *os.ProcessState
	err     error
}

// Start starts cmd, which must come from exec.Command (not CommandContext), and waits for it in the
// background. If cmd asks for Pdeathsig, it is started from an OS thread that lives as long as the child:
// Linux sends that signal when the starting thread ends, not the process.
func (r *Reaper) Start(cmd *exec.Cmd) (*Child, error) {
	a := cmd.SysProcAttr
	c := &Child{done: make(chan struct{}), leader: a != nil && a.Setpgid && a.Pgid == 0}
	started := make(chan error, 1)
	go func() {
		if a != nil && a.Pdeathsig != 0 {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
		}
		err := r.start(cmd)
		c.process = cmd.Process
		started <- err
		if err != nil {
			return
		}
		defer close(c.done)
		c.err = cmd.Wait()
		c.state = cmd.ProcessState
		r.forget(cmd.Process.Pid)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (r *Reaper) start(cmd *exec.Cmd) error {
	if r == nil {
		return cmd.Start()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	r.owned[cmd.Process.Pid] = struct{}{}
	return nil
}

func (r *Reaper) forget(pid int) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.owned, pid)
}

// Pid returns the process id.
func (c *Child) Pid() int { return c.process.Pid }

// Done returns a channel that is closed when the process has ended and its output is complete.
func (c *Child) Done() <-chan struct{} { return c.done }

// State waits for the end and returns how the process ended; nil if the kernel tells only the parent, which is not this process.
func (c *Child) State() *os.ProcessState {
	<-c.done
	return c.state
}

// Err waits for the end and returns what exec.Cmd.Wait returned.
func (c *Child) Err() error {
	<-c.done
	return c.err
}

// Signal sends a signal to the process. It returns nil if the process has already ended.
func (c *Child) Signal(sig syscall.Signal) error {
	if err := c.process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// KillGroup sends SIGKILL to the process and, if it was started as the leader of its own process group, to the
// whole group.
func (c *Child) KillGroup() {
	if c.leader {
		_ = syscall.Kill(-c.Pid(), syscall.SIGKILL) // the group may be empty already
	}
	_ = c.Signal(syscall.SIGKILL)
}

// ExitCode returns the exit code as a shell reports it: the exit status, or 128 plus the number of the signal that
// ended the process. It returns -1 if s is nil.
func ExitCode(s *os.ProcessState) int {
	if s == nil {
		return -1
	}
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return 128 + int(w.Signal())
	}
	return s.ExitCode()
}
