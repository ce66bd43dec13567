package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Program returns the path of one of the programs as it is shipped: static, and without the race detector. All programs
// are built together, into build/tests, at most once per test process; where they are up to date, that takes a second.
func Program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

var programs = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(Root(), "build/tests")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	// Packages are tested at the same time, and one build is enough.
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	cmd := exec.Command("make", "--no-print-directory", "-s", "build", "BUILD="+dir, "VERSION=test")
	cmd.Dir = Root()
	// Without the commit in the program, a commit does not make it out of date. A make that runs the tests must not hand
	// its own settings down.
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "MAKEFLAGS=", "MAKEOVERRIDES=", "MFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make build: %w\n%s", err, out)
	}
	return dir, nil
})
