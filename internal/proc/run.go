package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// DefaultLimit is how many bytes of a command's output are kept if the caller knows no better limit.
const DefaultLimit = 1 << 20

// pipeGrace limits the wait for output after a process has ended: a descendant that keeps the pipe open would otherwise
// block Wait without end.
const pipeGrace = 500 * time.Millisecond

// Result is the outcome of a finished command.
type Result struct {
	Stdout, Stderr []byte
	ExitCode       int  // 128+n after signal n
	Truncated      bool // output beyond the limit was dropped
}

// Output runs cmd until it ends and returns at most limit bytes of each output stream. It makes cmd the leader of a
// process group; when ctx ends, it kills that group and returns the context's error. Any exit code is a success: see
// Result.ExitCode.
func (r *Reaper) Output(ctx context.Context, cmd *exec.Cmd, limit int) (Result, error) {
	return r.Nice(ctx, 0, cmd, limit)
}

// Nice is Output with a lower priority: niceness is added to that of this process.
func (r *Reaper) Nice(ctx context.Context, niceness int, cmd *exec.Cmd, limit int) (Result, error) {
	if err := context.Cause(ctx); err != nil {
		return Result{ExitCode: -1}, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	stdout, stderr := &limited{limit: limit}, &limited{limit: limit}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = pipeGrace
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	child, err := r.Start(cmd)
	if err != nil {
		return Result{ExitCode: -1}, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	// When memory runs out, the OOM killer should pick this command rather than HAProxy or nuncio. An error is ignored,
	// because the command may already have ended.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", child.Pid()), []byte("1000"), 0)
	if niceness > 0 {
		// Errors are ignored: the command may already have ended, or a sandbox may forbid it.
		if own, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0); err == nil {
			_ = syscall.Setpriority(syscall.PRIO_PGRP, child.Pid(), 20-own+niceness) // Linux returns 20 minus the niceness
		}
	}
	var ended error
	select {
	case <-child.Done():
	case <-ctx.Done():
		ended = context.Cause(ctx)
		child.KillGroup()
		<-child.Done()
	}
	res := Result{
		Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes(),
		ExitCode: ExitCode(child.State()), Truncated: stdout.cut || stderr.cut,
	}
	if ended != nil {
		return res, fmt.Errorf("run %s: killed: %w", cmd.Path, ended)
	}
	var exit *exec.ExitError
	if err := child.Err(); err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		return res, fmt.Errorf("run %s: %w", cmd.Path, err)
	}
	return res, nil
}

// RunForeground runs a long-lived command in the foreground. It passes every signal from signals on to the command and returns
// the command's exit code (128+n after signal n). When ctx ends it sends SIGTERM, and SIGKILL after grace. The caller
// sets cmd's standard streams.
func (r *Reaper) RunForeground(ctx context.Context, cmd *exec.Cmd, signals <-chan os.Signal, grace time.Duration) (int, error) {
	child, err := r.Start(cmd)
	if err != nil {
		return -1, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	stop := ctx.Done()
	var kill <-chan time.Time
	for {
		select {
		case <-child.Done():
			return ExitCode(child.State()), nil
		case s := <-signals:
			sig, ok := s.(syscall.Signal)
			if !ok || sig == syscall.SIGCHLD || sig == syscall.SIGURG {
				continue // for this process: the Go runtime preempts with SIGURG
			}
			if err := child.Signal(sig); err != nil {
				return -1, fmt.Errorf("pass %v on to %s: %w", sig, cmd.Path, err)
			}
		case <-stop:
			stop = nil
			_ = child.Signal(syscall.SIGTERM) // if this fails, SIGKILL follows
			kill = time.After(grace)
		case <-kill:
			child.KillGroup()
			kill = nil
		}
	}
}

// limited keeps the first limit bytes and swallows the rest, so that a talkative command neither blocks nor
// fills the memory.
type limited struct {
	buf   bytes.Buffer
	limit int
	cut   bool
}

func (l *limited) Write(p []byte) (int, error) {
	n := len(p)
	if room := l.limit - l.buf.Len(); n > room {
		p, l.cut = p[:max(room, 0)], true
	}
	l.buf.Write(p)
	return n, nil
}
