package reload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nuncio/internal/haproxy"
)

// stopStray ends a haproxy that an earlier nuncio on this state directory left behind. It can exist although
// the kernel is told to end it with nuncio: that setting is lost when haproxy has file capabilities.
func stopStray(ctx context.Context, o Options) error {
	socket := haproxy.MasterSocket(filepath.Join(o.RunDir, masterSocket), time.Second)
	reply, err := socket.Exec(ctx, "show proc")
	if err != nil {
		return nil // the usual case: nobody there, or a stale socket
	}
	p, err := haproxy.ParseProcesses(reply.Text)
	if err != nil {
		return fmt.Errorf("something that is not haproxy answers on %s: %w", socket.Path(), err)
	}
	pid := p.Master.Pid
	cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !strings.Contains(string(cmdline), socket.Path()) {
		return fmt.Errorf("a haproxy that this process cannot see answers on %s: it belongs to another container or "+
			"namespace; end it, or use another state directory", socket.Path())
	}
	o.Logger.Warn("a haproxy of an earlier nuncio still runs; ending it", "pid", pid)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = syscall.Kill(pid, sig) // it may have ended in the meantime
		for end := time.Now().Add(killAfter); time.Now().Before(end); time.Sleep(10 * pollInterval) {
			if _, err := socket.Exec(ctx, "show proc"); err != nil && syscall.Kill(pid, 0) != nil {
				return nil
			}
		}
	}
	return fmt.Errorf("a haproxy of an earlier nuncio, pid %d, does not end: end it by hand", pid)
}

// terminate stops haproxy at once and says whether it had to be killed for that.
func (h *instance) terminate(limit time.Duration) (killed bool) {
	_ = h.child.Signal(syscall.SIGTERM) // if this fails, SIGKILL follows
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-h.child.Done():
		return false
	case <-timer.C:
		h.child.KillGroup()
		return true
	}
}

// deaf says that haproxy may not have heard that it is to drain. One that has heard no longer answers on its runtime socket;
// of one whose start was never confirmed, silence says nothing.
func (h *instance) deaf() bool {
	if h.worker == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), repeatDrain/2)
	defer cancel()
	_, err := h.runtime.Exec(ctx, "show info")
	return err == nil
}

// reap waits for the workers of a dead master, which end by themselves within milliseconds, and kills them if
// they do not: the next haproxy needs their addresses.
func (h *instance) reap() {
	group := -h.child.Pid()
	for end := time.Now().Add(outputGrace); time.Now().Before(end); time.Sleep(pollInterval) {
		if syscall.Kill(group, 0) != nil {
			return
		}
	}
	_ = syscall.Kill(group, syscall.SIGKILL) // the group may be empty now
}
