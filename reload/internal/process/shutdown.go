package process

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/proc"
)

// KillAfter is how long haproxy gets to obey SIGTERM, which takes it milliseconds.
const KillAfter = 3 * time.Second

// StopLeftover ends a haproxy that an earlier nuncio on this state directory left behind and that cannot be adopted.
func StopLeftover(ctx context.Context, runDir string, log *slog.Logger) error {
	socket := haproxy.MasterSocket(filepath.Join(runDir, masterSocket), time.Second)
	r, err := ReadRecord(runDir)
	if err != nil || !r.runs() {
		if r.Pid, err = listener(ctx, socket); err != nil || r.Pid == 0 {
			return err
		}
	}
	log.Warn("ending a haproxy that an earlier nuncio left running", "pid", r.Pid)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		// Either may have ended in the meantime. A master that is killed takes its workers along, but not at once.
		_ = syscall.Kill(r.Pid, sig)
		if sig == syscall.SIGKILL {
			_ = syscall.Kill(-r.Pid, sig)
		}
		for end := time.Now().Add(KillAfter); time.Now().Before(end); time.Sleep(pollInterval) {
			if _, err := proc.StartTime(r.Pid); err != nil && !proc.GroupLives(r.Pid) {
				return nil
			}
		}
	}
	return fmt.Errorf("a haproxy of an earlier nuncio, pid %d, does not end; end it by hand", r.Pid)
}

// listener returns the pid of the master that answers on a socket; 0 if none does.
func listener(ctx context.Context, socket haproxy.Socket) (int, error) {
	reply, err := socket.Exec(ctx, "show proc")
	if err != nil {
		return 0, nil // the usual case: no socket, or a stale one
	}
	p, err := haproxy.ParseProcesses(reply.Text)
	if err != nil {
		return 0, fmt.Errorf("something that is not haproxy answers on %s: %w", socket.Path(), err)
	}
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Master.Pid), "cmdline"))
	if err != nil || !strings.Contains(string(cmdline), socket.Path()) {
		return 0, fmt.Errorf("a haproxy that this process cannot see answers on %s: it belongs to another container or "+
			"namespace; end it, or use a different state directory", socket.Path())
	}
	return p.Master.Pid, nil
}

// Drain tells haproxy to take no new connections and to end once the requests under way have. The signal has no effect on a
// master in its first milliseconds: see IgnoredDrain.
func (h *Process) Drain() { _ = h.child.Signal(syscall.SIGUSR1) } // it fails only if the process has ended, which Done says

// IgnoredDrain reports whether haproxy may have missed the signal to drain. One that has received it no longer answers on its
// runtime socket; the silence of one whose start was never confirmed says nothing. It takes up to 0.5 s.
func (h *Process) IgnoredDrain() bool {
	if h.worker == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err := h.runtime.Exec(ctx, "show info")
	return err == nil
}

// Terminate stops haproxy at once and reports whether it had to be killed for that.
func (h *Process) Terminate() (killed bool) {
	_ = h.child.Signal(syscall.SIGTERM) // if this fails, SIGKILL follows
	timer := time.NewTimer(KillAfter)
	defer timer.Stop()
	select {
	case <-h.child.Done():
		return false
	case <-timer.C:
		h.child.KillGroup()
		return true
	}
}

// Kill kills haproxy and its workers and waits for their end.
func (h *Process) Kill() {
	h.child.KillGroup()
	<-h.child.Done()
}

// KillWorkers ends what is left of a dead master. Its workers end by themselves within milliseconds, and cut all requests: to wait
// for that would only make the outage longer. The next haproxy needs their addresses, so it waits until none is left.
func (h *Process) KillWorkers() {
	group := h.child.Pid()
	_ = syscall.Kill(-group, syscall.SIGKILL) // the group may be empty
	for end := time.Now().Add(KillAfter); proc.GroupLives(group) && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
}
