package process

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

const (
	masterSocket  = "master.sock"
	runtimeSocket = "runtime.sock"
	stateFile     = "servers.state"

	// CommandTimeout bounds one command of the Runtime API.
	CommandTimeout = 5 * time.Second
	pollInterval   = 5 * time.Millisecond
	// alertGrace is how long the alert that explains a failed start or reload may take through the pipe, and lastWords what a
	// master that has served and died said last: a process that HAProxy has started may keep its output open.
	alertGrace = 500 * time.Millisecond
	lastWords  = 10 * time.Millisecond
	// lostAfter is how long a master may answer without having counted a reload.
	lostAfter = 2 * time.Second
)

// ErrUnknown means that HAProxy did not say, within the time allowed, which configuration it runs.
var ErrUnknown = errors.New("the outcome is unknown")

// errKept means that HAProxy has tried to load the configuration and could not.
var errKept = errors.New("haproxy keeps its old configuration")

// errLost means that the master never received the command to reload.
var errLost = errors.New("the command to reload was lost")

// ExitError says how a haproxy process ended.
type ExitError struct {
	Code    int    // haproxy's own exit code, 128+n after signal n; -1 if it is not known
	Message string // the end of haproxy's output
}

func (e *ExitError) Error() string {
	text := fmt.Sprintf("haproxy ended with exit code %d", e.Code)
	if e.Code < 0 {
		text = "haproxy, which an earlier nuncio started, ended" // the kernel tells its exit code only to its parent
	}
	if e.Message != "" {
		text += ": " + e.Message
	}
	return text
}

// WorkingDir is haproxy's, when it is started and when it checks files. A master whose working directory is deleted cannot
// load "default-path config" any more.
const WorkingDir = "/"

// Options say how haproxy is started.
type Options struct {
	Program string
	Env     []string // see Environment
	RunDir  string   // the directory of the two sockets
	Configs []string // the configuration files, in order
	// ReloadTimeout bounds one command to the master, which answers only when the new worker is ready.
	ReloadTimeout time.Duration
	Procs         *proc.Reaper // may be nil
	Logger        *slog.Logger // gets what haproxy prints, line by line
	// AccessLog is haproxy's standard output: "log stdout" writes there. With nil that goes to Logger too.
	AccessLog *os.File
}

// Process is one haproxy master with its workers. One goroutine uses it, but for Done.
type Process struct {
	child   *proc.Child
	out     *output
	master  haproxy.Socket
	runtime haproxy.Socket
	worker  int // pid of the worker that serves
	started time.Time
	// args and startTime tell the master from any other process: see Record.
	args      []string
	startTime uint64
}

// connect prepares a Process without a master.
func connect(o Options) *Process {
	return &Process{
		out: newOutput(o.Logger), started: time.Now(), args: o.args(),
		master:  haproxy.MasterSocket(filepath.Join(o.RunDir, masterSocket), o.ReloadTimeout),
		runtime: haproxy.RuntimeSocket(RuntimeSocket(o.RunDir), CommandTimeout),
	}
}

// args is the command line of the master.
func (o Options) args() []string {
	// -db keeps the master in the foreground even if the configuration says "daemon".
	args := []string{o.Program, "-W", "-db", "-S", filepath.Join(o.RunDir, masterSocket) + ",level,admin,mode,600"}
	for _, c := range o.Configs {
		args = append(args, "-f", c)
	}
	return args
}

// Launch starts haproxy. It does not wait for a worker: see Confirm. The process outlives this one: see Adopt.
func Launch(o Options) (*Process, error) {
	h := connect(o)
	for _, s := range []haproxy.Socket{h.master, h.runtime} {
		// A killed HAProxy leaves its sockets behind; a stale one must not be taken for an answer.
		if err := os.Remove(s.Path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("start haproxy: remove a stale socket: %w", err)
		}
	}
	cmd := exec.Command(h.args[0], h.args[1:]...)
	cmd.Env, cmd.Dir = o.Env, WorkingDir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C at a terminal is for nuncio, which drains
	in, out, err := openOutput(o.RunDir)
	if err != nil {
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	defer func() { _ = out.Close() }() // HAProxy has its own
	cmd.Stdout, cmd.Stderr = cmp.Or(o.AccessLog, out), out
	if h.child, err = o.Procs.Start(cmd); err != nil {
		_ = in.Close() // nothing was read
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	h.out.follow(in, h.child.Done())
	h.startTime, _ = proc.StartTime(h.Pid()) // an error: it has ended, and nobody will look for it
	return h, nil
}

// Pid returns the master's process id.
func (h *Process) Pid() int { return h.child.Pid() }

// Worker returns the process id of the worker that serves; 0 before Confirm has returned nil.
func (h *Process) Worker() int { return h.worker }

// Started returns when the process was started, or adopted.
func (h *Process) Started() time.Time { return h.started }

// Done returns a channel that is closed when the master has ended.
func (h *Process) Done() <-chan struct{} { return h.child.Done() }

// Confirm waits until a worker serves.
func (h *Process) Confirm(ctx context.Context) error { return h.confirm(ctx, haproxy.Processes{}) }

// OldWorkers asks the master how many replaced workers still have sessions.
func (h *Process) OldWorkers(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, CommandTimeout)
	defer cancel()
	p, err := h.processes(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, w := range p.OldWorkers {
		if w.Pid != h.worker { // 3.1 and later list the survivor of a failed reload here
			n++
		}
	}
	return n, nil
}

// Reload makes the master load the configuration files and returns once a new worker serves it. An error that
// wraps ErrUnknown leaves open which configuration runs; after any other one it is the old one.
func (h *Process) Reload(ctx context.Context) error {
	before, err := h.processes(ctx)
	if err != nil {
		return err
	}
	for {
		err := h.reloadOnce(ctx, before)
		if !errors.Is(err, errLost) {
			return err
		}
	}
}

func (h *Process) reloadOnce(ctx context.Context, before haproxy.Processes) error {
	position := h.out.position()
	// An error here, be it a refusal, a reset or silence, leaves open whether the command was carried out.
	answer, _ := h.master.Exec(ctx, "reload")
	reply := haproxy.ParseReload(answer.Text)
	if reply.Known && !reply.Success {
		return fmt.Errorf("%w: %s", errKept, excerpt(tidy(reply.Log, "")))
	}
	if !reply.Known {
		if err := h.counted(ctx, before, position); err != nil {
			return err
		}
	}
	return h.confirm(ctx, before)
}

// counted is the proof for a reload that HAProxy gave no answer to, which is every one on 2.6: the
// master's count of reloads has grown, and there is a worker that this reload made. A master that answers and
// has not counted for a while never got the command: one that reloads does not answer, or counts at once.
func (h *Process) counted(ctx context.Context, before haproxy.Processes, position int) error {
	sent := time.Now()
	for {
		now, err := h.processes(ctx)
		if err != nil {
			return err
		}
		if now.Master.Reloads > before.Master.Reloads || now.Master.Failed > before.Master.Failed {
			if freshWorker(now, before) != 0 {
				return nil
			}
			return fmt.Errorf("%w: %s", errKept, excerpt(h.failureOutput(ctx, position)))
		}
		if time.Since(sent) > lostAfter {
			return errLost
		}
		if err := h.sleep(ctx); err != nil {
			return err
		}
	}
}

// confirm waits until the worker that serves the Runtime API is one that before does not know. It is the only
// proof that holds for every version: a new worker can be listed before it is ready, and the old one answers
// for a while after the new one has been announced.
func (h *Process) confirm(ctx context.Context, before haproxy.Processes) error {
	for {
		now, err := h.processes(ctx)
		if err != nil {
			return err
		}
		if pid := freshWorker(now, before); pid != 0 {
			reply, err := h.runtime.Exec(ctx, "show info")
			if err == nil {
				if info, err := haproxy.ParseInfo(reply.Text); err == nil && info.Pid == pid {
					h.worker = pid
					return nil
				}
			}
		}
		if err := h.sleep(ctx); err != nil {
			return err
		}
	}
}

// Keywords returns the table of a version with what the worker says about its keywords, which 3.2 and later do.
func (h *Process) Keywords(ctx context.Context, table haproxy.ServerKeywords) haproxy.ServerKeywords {
	reply, err := h.runtime.Exec(ctx, haproxy.HelpOnServers)
	if err != nil {
		return table // before 3.2 it is refused
	}
	asked, _ := table.WithHelp(reply.Text)
	return asked
}

// freshWorker returns the pid of a worker that no reload has followed and that before does not list; 0 if there is none.
func freshWorker(now, before haproxy.Processes) int {
	for _, w := range now.Workers {
		known := func(p haproxy.Process) bool { return p.Pid == w.Pid }
		if w.Reloads == 0 && !slices.ContainsFunc(before.Workers, known) && !slices.ContainsFunc(before.OldWorkers, known) {
			return w.Pid
		}
	}
	return 0
}

// processes asks the master until it answers: while it loads a configuration its socket is closed or
// resets connections, on 2.6 and 3.0 for the whole of the load.
func (h *Process) processes(ctx context.Context) (haproxy.Processes, error) {
	for {
		reply, err := h.master.Exec(ctx, "show proc")
		if err == nil {
			if p, err := haproxy.ParseProcesses(reply.Text); err == nil {
				return p, nil
			}
		}
		if err := h.sleep(ctx); err != nil {
			return haproxy.Processes{}, err
		}
	}
}

// sleep waits a little; it returns an error when haproxy has ended or the time is up.
func (h *Process) sleep(ctx context.Context) error {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-h.child.Done():
		return h.ExitError()
	case <-ctx.Done():
		return fmt.Errorf("%w: no confirmation from haproxy: %w", ErrUnknown, context.Cause(ctx))
	}
}

// ExitError returns how a haproxy that has ended did so. It waits for the reason of a start that failed; a restart of one that
// has served must not wait for its last words.
func (h *Process) ExitError() *ExitError {
	limit := alertGrace
	if h.worker != 0 {
		limit = lastWords
	}
	h.out.awaitEnd(limit)
	return &ExitError{Code: proc.ExitCode(h.child.State()), Message: excerpt(h.out.since(h.out.position() - 20))}
}

// failureOutput waits a moment for the alert that explains a failed reload: a different goroutine reads the pipe.
func (h *Process) failureOutput(ctx context.Context, position int) string {
	deadline := time.Now().Add(alertGrace)
	for {
		text := h.out.since(position)
		if alerts(text) != "" || time.Now().After(deadline) || h.sleep(ctx) != nil {
			return text
		}
	}
}

// excerpt returns what to show of HAProxy's output: its alerts, or the end of it if there are none.
func excerpt(output string) string {
	if a := alerts(output); a != "" {
		return a
	}
	const enough = 500
	if len(output) > enough {
		return "..." + output[len(output)-enough:]
	}
	if output == "" {
		return "it gave no reason"
	}
	return output
}
