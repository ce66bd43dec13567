package reload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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

	commandTimeout = 5 * time.Second
	pollInterval   = 5 * time.Millisecond
	// outputGrace is how long a dead master's workers may hold its output open; see exec.Cmd.WaitDelay.
	outputGrace = 500 * time.Millisecond
	// lostAfter is how long a master may answer without having counted a reload.
	lostAfter = 2 * time.Second
)

// errUnknown: HAProxy did not say, within the time allowed, which configuration it runs.
var errUnknown = errors.New("the outcome is unknown")

// errKept: HAProxy has tried to load the configuration, and could not.
var errKept = errors.New("haproxy keeps its old configuration")

// errLost: the master never got the command to reload.
var errLost = errors.New("the command to reload was lost")

// instance is one haproxy master with its workers.
type instance struct {
	child   *proc.Child
	out     *output
	version haproxy.Version
	master  haproxy.Socket
	runtime haproxy.Socket
	worker  int // pid of the worker that serves
	since   time.Time
}

// launch starts haproxy on the current generation. Nothing is known then about how it gets on: see confirm.
func launch(o Options, version haproxy.Version) (*instance, error) {
	h := &instance{
		out: newOutput(o.HAProxyLogger), version: version, since: time.Now(),
		// A command to the master may take as long as a reload: it answers when the new worker is ready.
		master:  haproxy.MasterSocket(filepath.Join(o.RunDir, masterSocket), o.ReloadTimeout),
		runtime: haproxy.RuntimeSocket(filepath.Join(o.RunDir, runtimeSocket), commandTimeout),
	}
	for _, s := range []haproxy.Socket{h.master, h.runtime} {
		// HAProxy killed outright leaves its sockets; a stale one must not be taken for an answer.
		if err := os.Remove(s.Path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("start haproxy: remove a stale socket: %w", err)
		}
	}
	current := filepath.Join(o.StateDir, currentLink)
	// -db keeps the master in the foreground even if the configuration says "daemon".
	cmd := exec.Command(o.HAProxy, "-W", "-db", "-S", h.master.Path()+",level,admin,mode,600",
		"-f", filepath.Join(current, ownConfigFile), "-f", filepath.Join(current, haproxy.ConfigFile))
	cmd.Env, cmd.Dir, cmd.WaitDelay = o.Env, o.StateDir, outputGrace
	cmd.Stderr, cmd.Stdout = h.out, o.HAProxyStdout
	if o.HAProxyStdout == nil {
		cmd.Stdout = h.out
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C at a terminal is for nuncio, which drains
		Pdeathsig: syscall.SIGTERM, // a killed nuncio must not leave a haproxy that holds the ports
	}
	var err error
	if h.child, err = o.Procs.Start(cmd); err != nil {
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	return h, nil
}

// reload makes the master load the current generation and returns once a new worker serves it. An error that
// wraps errUnknown leaves open which configuration runs; after any other one it is the old one.
func (h *instance) reload(ctx context.Context) error {
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

func (h *instance) reloadOnce(ctx context.Context, before haproxy.Processes) error {
	mark := h.out.mark()
	// An error here, be it a refusal, a reset or silence, leaves open whether the command was carried out.
	answer, _ := h.master.Exec(ctx, "reload")
	reply := haproxy.ParseReload(answer.Text)
	if reply.Known && !reply.Success {
		return fmt.Errorf("%w: %s", errKept, words(tidy(reply.Log, "")))
	}
	if !reply.Known {
		if err := h.counted(ctx, before, mark); err != nil {
			return err
		}
	}
	return h.confirm(ctx, before)
}

// counted is the proof for a reload that HAProxy said nothing about, which is every one on 2.6: the
// master's count of reloads has grown, and there is a worker that this reload made. A master that answers and
// has not counted for a while never got the command: one that reloads does not answer, or counts at once.
func (h *instance) counted(ctx context.Context, before haproxy.Processes, mark int) error {
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
			return fmt.Errorf("%w: %s", errKept, words(h.lastWords(ctx, mark)))
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
func (h *instance) confirm(ctx context.Context, before haproxy.Processes) error {
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

// keywords is the table of a version after what the worker says about it, if it says anything.
func (h *instance) keywords(ctx context.Context, table haproxy.ServerKeywords) haproxy.ServerKeywords {
	reply, err := h.runtime.Exec(ctx, haproxy.HelpOnServers)
	if err != nil {
		return table // before 3.2 it is refused
	}
	told, _ := table.Told(reply.Text)
	return told
}

// freshWorker is the pid of a worker that no reload has followed and that before does not list; 0 if none.
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
func (h *instance) processes(ctx context.Context) (haproxy.Processes, error) {
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
func (h *instance) sleep(ctx context.Context) error {
	timer := time.NewTimer(pollInterval)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-h.child.Done():
		return h.obituary()
	case <-ctx.Done():
		return fmt.Errorf("%w: no confirmation from haproxy: %w", errUnknown, context.Cause(ctx))
	}
}

// obituary says how a haproxy that has ended did so.
func (h *instance) obituary() *ExitError {
	return &ExitError{Code: proc.ExitCode(h.child.State()), Message: words(h.out.since(h.out.mark() - 20))}
}

// lastWords waits a moment for the alert that explains a failed reload: the pipe is read by another goroutine.
func (h *instance) lastWords(ctx context.Context, mark int) string {
	deadline := time.Now().Add(outputGrace)
	for {
		text := h.out.since(mark)
		if alerts(text) != "" || time.Now().After(deadline) || h.sleep(ctx) != nil {
			return text
		}
	}
}

// words is what to show of HAProxy's output: its alerts, or else the end of it.
func words(output string) string {
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
