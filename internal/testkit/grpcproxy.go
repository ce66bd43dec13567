package testkit

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// GRPCProxy is etcd's own proxy, "etcd grpc-proxy", in a process of its own.
type GRPCProxy struct {
	Addr string

	Pid int
	log lockedBuffer
}

// StartGRPCProxy starts a proxy in front of an etcd and waits until it listens.
func StartGRPCProxy(t testing.TB, server *Etcd) *GRPCProxy {
	t.Helper()
	p := &GRPCProxy{Addr: FreeAddr(t)}
	cmd := exec.Command(filepath.Join(Root(), "build/tools/etcd"), "grpc-proxy", "start", "--endpoints="+server.Endpoint,
		"--listen-addr="+p.Addr, "--data-dir="+t.TempDir())
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start etcd's grpc-proxy: %v", err)
	}
	p.Pid = cmd.Process.Pid
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()         // it was killed: its status means nothing
	})
	Eventually(t, 30*time.Second, func() error {
		c, err := net.Dial("tcp", p.Addr)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, p.log.String())
		}
		return c.Close()
	})
	return p
}

// Refusals returns how many requests the proxy has refused in its log because it does not know their kind: those for
// progress.
func (p *GRPCProxy) Refusals() int {
	return strings.Count(p.log.String(), "not supported request type by gRPC proxy")
}
