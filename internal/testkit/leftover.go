package testkit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// HAProxyOf returns the pid of the master that runs on a state directory, also after its nuncio was killed; 0 if none does.
func HAProxyOf(stateDir string) (int, error) {
	b, err := os.ReadFile(filepath.Join(stateDir, "run", "haproxy.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	var record struct{ Pid int }
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil {
		return 0, fmt.Errorf("HAProxy of %s: %w", stateDir, err)
	}
	// The record outlives the process, and its number may be another's by then.
	words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", record.Pid))
	if err != nil || !strings.Contains(string(words), filepath.Join(stateDir, "run")) {
		return 0, nil
	}
	return record.Pid, nil
}

// KillHAProxyOf kills the HAProxy that outlives a killed nuncio, with its workers, as the end of a container does.
func KillHAProxyOf(t testing.TB, stateDir string) {
	t.Helper()
	pid, err := HAProxyOf(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	if pid == 0 {
		return
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // it may have ended meanwhile
	Eventually(t, 20*time.Second, func() error {
		if left, err := HAProxyOf(stateDir); err != nil || left != 0 {
			return fmt.Errorf("HAProxy %d still runs; %w", left, err)
		}
		return nil
	})
}
