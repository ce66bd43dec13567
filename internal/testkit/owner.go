package testkit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Owner identifies this test process on things that outlive it, such as containers. It holds the PID namespace, since
// test processes of two namespaces may share a Docker engine.
func Owner() string { return pidNamespace() + "-" + strconv.Itoa(os.Getpid()) }

// OwnerEnded reports whether the process that an Owner names has ended. It is false for a process of a different PID
// namespace, which cannot be seen from here.
func OwnerEnded(owner string) bool {
	namespace, pid, _ := strings.Cut(owner, "-")
	n, err := strconv.Atoi(pid)
	return err == nil && namespace == pidNamespace() && errors.Is(syscall.Kill(n, 0), syscall.ESRCH)
}

// pidNamespace returns the number in "pid:[4026531836]".
func pidNamespace() string {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "0"
	}
	return strings.Trim(link, "pid:[]")
}

// token differs between test processes, whatever machine or PID namespace they run in.
var token = strings.ToLower(rand.Text()[:8])

// UniqueName returns a name for a container or network that no other test process uses.
func UniqueName(n int64) string { return fmt.Sprintf("nt-%s-%d", token, n) }
