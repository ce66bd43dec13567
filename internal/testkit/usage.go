package testkit

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Usage is what a process has used so far.
type Usage struct {
	CPU    time.Duration
	Sent   int64 // bytes written, to sockets and files alike
	Memory int64 // bytes in memory now
}

// UsageOf reads the usage of a process.
func UsageOf(t testing.TB, pid int) Usage {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, rest, _ := strings.Cut(read("stat"), ") ")
	f := strings.Fields(rest)
	number := func(text string) int64 { n, _ := strconv.ParseInt(text, 10, 64); return n } // the kernel writes numbers
	after := func(text, name string) int64 {
		_, rest, _ := strings.Cut(text, name)
		return number(strings.Fields(rest + " 0")[0])
	}
	return Usage{
		CPU:    time.Duration(number(f[11])+number(f[12])) * 10 * time.Millisecond,
		Sent:   after(read("io"), "wchar:"),
		Memory: after(read("status"), "VmRSS:") * 1024,
	}
}

// Sub returns the difference; of the memory it keeps what is used now.
func (u Usage) Sub(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.Sent - before.Sent, u.Memory}
}
