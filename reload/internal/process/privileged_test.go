package process_test

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"nuncio/reload/internal/process"
)

// HAProxy's program may have cap_net_bind_service where nuncio's has not: a port that nuncio may not bind need not be in use.
func TestAPortThatOnlyHAProxyMayBindIsNotInUse(t *testing.T) {
	const config = "frontend f\n bind 127.0.0.1:82\n"
	without := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and its lack of a capability with it
		if err := dropBindService(); err != nil {
			without <- err
			return
		}
		if err := bindTo(82); !errors.Is(err, unix.EACCES) {
			without <- errors.Join(errors.New("an ordinary user may bind port 82 here"), err)
			return
		}
		without <- nil
		without <- process.Probe(nil, []byte(config), nil)
	}()
	if err := <-without; err != nil {
		t.Skip(err)
	}
	if err := <-without; err != nil {
		t.Errorf("got %v, want no verdict", err)
	}
}

// bindTo tries to bind a port as the calling thread may.
func bindTo(port int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}), unix.Close(fd))
}

// dropBindService takes a capability from the calling thread, if it has it.
func dropBindService() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_BIND_SERVICE
	return unix.Capset(&header, &data[0])
}
