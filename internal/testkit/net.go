package testkit

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

var ports struct {
	sync.Mutex
	next int
}

// Host is a loopback address of this test process alone, so that packages tested at the same time cannot take
// each other's ports.
func Host() string {
	pid := os.Getpid()
	return fmt.Sprintf("127.%d.%d.1", 1+(pid>>8)%254, pid&0xff)
}

// FreeAddr returns an address on Host that nothing listens on. Ports stay below the kernel's ephemeral range,
// so that no outgoing connection can take one in the meantime.
func FreeAddr(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 5000 {
		ports.next = ports.next%10000 + 1
		addr := net.JoinHostPort(Host(), strconv.Itoa(20000+ports.next))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		return addr
	}
	t.Fatal("no free port below the ephemeral range")
	return ""
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
