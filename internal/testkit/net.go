package testkit

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Ports of tests come from blocks. A test process owns one block for as long as it lives, so two test processes, of one
// clone or of two, never hand out the same port. That matters beyond one address: HAProxy binds "*:port" for a service
// with tcp.port, and it binds with SO_REUSEPORT, so a port that two HAProxies share is not even an error. All blocks lie
// below the kernel's ephemeral range (32768 and up), where no outgoing connection takes a port.
const (
	firstPort  = 10000
	blockSize  = 500
	portBlocks = 44
)

var ports struct {
	sync.Mutex
	lock     net.Listener // holds the block; the kernel drops it with the process
	first    int
	next     int
	reserved map[int]bool
}

// Host returns a loopback address that identifies this test process in logs and in what HAProxy shows.
func Host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.1", 1+(pid>>8)%254, pid&0xff)
}

// FreeAddr returns an address on Host whose port nothing listens on, on any address, and which no other caller gets until
// the test ends. It is for programs that must know their port before they listen, such as HAProxy; a server of the test
// itself uses Listen.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort(Host(), strconv.Itoa(reservePort(t)))
}

// Listen returns a listener on such an address. The address can be used again after Close until the test ends.
func Listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", FreeAddr(t))
	if err != nil {
		t.Fatalf("listen on a port of this process's own block: %v", err)
	}
	return l
}

func reservePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.lock == nil {
		claimBlock(t)
	}
	for range blockSize {
		port := ports.first + ports.next
		ports.next = (ports.next + 1) % blockSize
		if ports.reserved[port] || !isFree(port) {
			continue
		}
		ports.reserved[port] = true
		t.Cleanup(func() {
			ports.Lock()
			defer ports.Unlock()
			delete(ports.reserved, port)
		})
		return port
	}
	t.Fatalf("all %d ports from %d are reserved or in use", blockSize, ports.first)
	return 0
}

// claimBlock takes a block of ports. The lock is an abstract Unix socket: the kernel keeps these names per network
// namespace, which is what shares ports, and frees them when a process dies.
func claimBlock(t testing.TB) {
	t.Helper()
	for i := range portBlocks {
		first := firstPort + (os.Getpid()+i)%portBlocks*blockSize
		lock, err := net.Listen("unix", "@nuncio-test-ports-"+strconv.Itoa(first))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatalf("claim the ports from %d: %v", first, err)
		}
		ports.lock, ports.first, ports.reserved = lock, first, map[int]bool{}
		return
	}
	t.Fatalf("all %d blocks of ports are claimed by other test processes", portBlocks)
}

// isFree reports whether nothing listens on a port, whatever the address: a wildcard listener conflicts with all others. No
// program is started meanwhile: until its exec, the new process would have the listener too, and keep the port after Close.
func isFree(port int) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Eventually calls check until it returns nil, and fails the test with its last error after limit.
func Eventually(t testing.TB, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
