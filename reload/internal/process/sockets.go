package process

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"nuncio/internal/haproxy"
)

// HasSockets reports whether both sockets are in their directory. HAProxy goes on without them, and nobody reaches it.
func HasSockets(runDir string) bool {
	for _, name := range []string{masterSocket, runtimeSocket} {
		info, err := os.Lstat(filepath.Join(runDir, name))
		if err != nil || info.Mode().Type() != fs.ModeSocket {
			return false
		}
	}
	return true
}

// MakeRunDir makes the directory of the sockets again, with what HAProxy and a later nuncio look for in it.
func MakeRunDir(runDir string) error {
	if err := os.MkdirAll(runDir, 0o700); err != nil {
		return err
	}
	if err := WriteStateFile(runDir, haproxy.EmptyStateFile); err != nil {
		return err
	}
	in, out, err := openOutput(runDir) // HAProxy goes on with the one it has, whose name is gone
	if err != nil {
		return err
	}
	_, _ = in.Close(), out.Close() // nothing was read or written
	return nil
}

// OwnConfigAgain is OwnConfig with a different spelling of the path of the Runtime API's socket, or with the usual one if own has
// the other. A new worker takes the open sockets of the old one over by their paths, and so would never make a file that
// was deleted (2.6 to 3.4).
func OwnConfigAgain(runDir string, own []byte) []byte {
	usual := OwnConfig(runDir)
	if !bytes.Equal(own, usual) {
		return usual
	}
	return bytes.Replace(usual, []byte("/"+runtimeSocket), []byte("/./"+runtimeSocket), 1)
}

// signalTimeout bounds a reload by signal, because nothing tells that it has failed.
const signalTimeout = 10 * time.Second

// ReloadBySignal is Reload for a master whose socket was deleted; it makes a new one when it reloads.
func (h *Process) ReloadBySignal(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, signalTimeout)
	defer cancel()
	before := haproxy.Processes{Workers: []haproxy.Process{{Pid: h.worker}}}
	if err := h.child.Signal(syscall.SIGUSR2); err != nil {
		return fmt.Errorf("signal USR2 to haproxy: %w", err)
	}
	return h.confirm(ctx, before)
}
