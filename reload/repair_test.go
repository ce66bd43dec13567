package reload_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestARepairThatFailsOnceIsRepeatedByItsOwnTimer(t *testing.T) {
	t.Parallel()
	h := testkit.HAProxies(t)[0]
	addr := testkit.FreeAddr(t)
	r := start(t, h, reload.Options{ReloadTimeout: 2 * time.Second, VerifyInterval: time.Hour, DriftInterval: 20 * time.Millisecond})
	s := r.applied(pool(addr, line("a", "127.0.0.1:1", 11, "weight 100")), 1)
	hang(t, s.MasterPid)
	r.show("add server web/stranger 127.0.0.1:3") // only a reload rids the worker of it
	r.until("a failed repair", func(s reload.Status) bool { return s.State == reload.Degraded && s.LastError != "" })
	wake(t, s.MasterPid)
	r.until("a repaired worker", func(s reload.Status) bool { return s.State == reload.Running && s.Ready })
	testkit.Eventually(t, 20*time.Second, func() error {
		if text := r.show("show servers state web"); strings.Contains(text, "stranger") {
			return errors.New(text)
		}
		return nil
	})
}

func hang(t *testing.T, pid int) { kill(t, pid, syscall.SIGSTOP) }
func wake(t *testing.T, pid int) { kill(t, pid, syscall.SIGCONT) }
