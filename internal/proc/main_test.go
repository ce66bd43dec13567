package proc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"nuncio/internal/proc"
)

// The test binary is its own helper program: the variable selects the role.
const role = "PROC_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "reaper":
		os.Exit(reaperMain())
	case "init":
		// PID 1 of its own namespace: /proc must be this namespace's.
		if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			fmt.Println("mount:", err)
			os.Exit(1)
		}
		os.Exit(reaperMain())
	}
	goleak.VerifyTestMain(m)
}

// reaperMain runs 300 children that exit 7 and each leave an orphan behind, and prints what it found.
func reaperMain() int {
	if os.Getpid() != 1 {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			fmt.Println("prctl:", err)
			return 1
		}
	}
	if !proc.IsReaper() {
		fmt.Println("this process is not seen as a reaper")
		return 1
	}
	r := proc.NewReaper(proc.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	done := make(chan error, 1)
	reaping, stop := context.WithCancel(ctx)
	go func() { done <- r.Run(reaping) }()

	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			for range 10 {
				res, err := r.Output(ctx, exec.Command("/bin/sh", "-c", "(sleep 0.02) >/dev/null 2>&1 & exit 7"), 100)
				mu.Lock()
				codes[res.ExitCode]++
				if err != nil {
					fmt.Println("error:", err)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	left := -1
	for deadline := time.Now().Add(20 * time.Second); left != 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		left = children()
	}
	stop()
	fmt.Printf("pid1=%v codes=%v left=%d run=%v\n", os.Getpid() == 1, codes, left, <-done)
	return 0
}

// children counts the processes, zombies included, whose parent is this one.
func children() int {
	n := 0
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if f[1] == strconv.Itoa(os.Getpid()) {
			n++
		}
	}
	return n
}
