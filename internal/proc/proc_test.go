package proc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"nuncio/internal/proc"
	"nuncio/internal/testkit"
)

func helper(t *testing.T, as string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"="+as)
	return cmd
}

func TestSubreaperLosesNoStatusAndLeavesNoZombie(t *testing.T) {
	out, err := helper(t, "reaper").CombinedOutput()
	if want := "pid1=false codes=map[7:300] left=0 run=<nil>\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v\nwant %q", out, err, want)
	}
}

func TestPID1LosesNoStatusAndLeavesNoZombie(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
			t.Fatal("a PID namespace needs root and NUNCIO_TEST_STRICT=1")
		}
		t.Skip("a PID namespace needs root")
	}
	cmd := helper(t, "init")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if want := "pid1=true codes=map[7:300] left=0 run=<nil>\n"; err != nil || string(out) != want {
		t.Errorf("got %q, %v\nwant %q", out, err, want)
	}
}

func TestOutputReturnsExitCodesAndBothStreams(t *testing.T) {
	for _, c := range []struct {
		name, script string
		code         int
		out, err     string
	}{
		{"success", "echo a; echo b >&2", 0, "a\n", "b\n"},
		{"an exit code is no error", "exit 3", 3, "", ""},
		{"a signal is 128 and its number", "kill -TERM $$", 143, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r *proc.Reaper
			res, err := r.Output(t.Context(), exec.Command("/bin/sh", "-c", c.script), 100)
			if err != nil || res.ExitCode != c.code || string(res.Stdout) != c.out || string(res.Stderr) != c.err {
				t.Errorf("got %+v, %v", res, err)
			}
		})
	}
}

func TestNiceLowersThePriority(t *testing.T) {
	var none *proc.Reaper
	for niceness, want := range map[int]string{0: "0", 7: "7"} {
		// The command may be ahead of its priority; nice prints it.
		cmd := exec.Command("/bin/sh", "-c", `own=$1; for i in $(seq 600); do now=$(($(nice) - own)); [ $now = $2 ] && break; sleep 0.05; done; echo $now`,
			"sh", strings.TrimSpace(string(run(t, "nice"))), want)
		res, err := none.Nice(t.Context(), niceness, cmd, proc.DefaultLimit)
		if err != nil || strings.TrimSpace(string(res.Stdout)) != want {
			t.Errorf("%d: got %q, %v; %s", niceness, res.Stdout, err, res.Stderr)
		}
	}
}

func run(t *testing.T, command string) []byte {
	t.Helper()
	out, err := exec.Command(command).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOutputCutsLongOutputWithoutBlockingTheCommand(t *testing.T) {
	res, err := proc.NewReaper(proc.Options{}).Output(t.Context(), exec.Command("/bin/sh", "-c", "yes | head -c 1000000; exit 5"), 10)
	if err != nil || res.ExitCode != 5 || !res.Truncated || string(res.Stdout) != "y\ny\ny\ny\ny\n" {
		t.Errorf("got %+v, %v", res, err)
	}
}

func TestOutputKillsTheWholeGroupWhenTimeIsUp(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := proc.NewReaper(proc.Options{}).Output(ctx, exec.Command("/bin/sh", "-c", "sleep 1000 & echo $! >"+pidFile+"; wait"), 100)
		ended <- err
	}()
	var pid int
	testkit.Eventually(t, 20*time.Second, func() error {
		b, err := os.ReadFile(pidFile)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want the context's error", err)
	}
	testkit.Eventually(t, 20*time.Second, func() error {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !bytes.Contains(b, []byte(") Z ")) {
			return fmt.Errorf("the grandchild lives: %s", b)
		}
		return nil
	})
}

func TestOutputDoesNotWaitForADescendantThatKeepsThePipeOpen(t *testing.T) {
	began := time.Now()
	res, err := proc.NewReaper(proc.Options{}).Output(t.Context(), exec.Command("/bin/sh", "-c", "echo x; sleep 30 & exit 4"), 100)
	if err != nil || res.ExitCode != 4 || string(res.Stdout) != "x\n" {
		t.Errorf("got %+v, %v", res, err)
	}
	if time.Since(began) > 25*time.Second {
		t.Error("it waited for the descendant")
	}
}

func TestOutputNamesAProgramThatDoesNotExist(t *testing.T) {
	_, err := proc.NewReaper(proc.Options{}).Output(t.Context(), exec.Command("/no/such/program"), 100)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "/no/such/program") {
		t.Errorf("got %v", err)
	}
}

func TestRunForegroundPassesSignalsOnAndReturnsTheExitCode(t *testing.T) {
	for _, c := range []struct {
		name, script string
		signal       syscall.Signal
		code         int
	}{
		// Not HUP: a shell below nohup cannot trap that.
		{"a command that handles the signal", "trap 'exit 9' USR2; touch $READY; while :; do sleep 0.01; done", syscall.SIGUSR2, 9},
		{"a command that dies of the signal", "touch $READY; exec sleep 1000", syscall.SIGUSR1, 128 + 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			ready := filepath.Join(t.TempDir(), "ready")
			cmd := exec.Command("/bin/sh", "-c", c.script)
			cmd.Env = append(os.Environ(), "READY="+ready)
			signals := make(chan os.Signal)
			type end struct {
				code int
				err  error
			}
			ended := make(chan end, 1)
			go func() {
				code, err := proc.NewReaper(proc.Options{}).RunForeground(context.Background(), cmd, signals, time.Second)
				ended <- end{code, err}
			}()
			testkit.Eventually(t, 20*time.Second, func() error { _, err := os.Stat(ready); return err })
			signals <- syscall.SIGCHLD // ours, not the command's
			signals <- c.signal
			if got := <-ended; got.code != c.code || got.err != nil {
				t.Errorf("got %+v, want code %d", got, c.code)
			}
		})
	}
}

func TestRunForegroundEndsACommandThatIgnoresTERM(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "ready")
	cmd := exec.Command("/bin/sh", "-c", "trap '' TERM; touch $READY; while :; do sleep 0.01; done")
	cmd.Env = append(os.Environ(), "READY="+ready)
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	go func() {
		c, _ := proc.NewReaper(proc.Options{}).RunForeground(ctx, cmd, nil, 20*time.Millisecond)
		code <- c
	}()
	testkit.Eventually(t, 20*time.Second, func() error { _, err := os.Stat(ready); return err })
	cancel()
	if got := <-code; got != 128+9 {
		t.Errorf("got exit code %d, want 137", got)
	}
}

// A child with Pdeathsig must live although the goroutine that started it has long ended.
func TestChildWithPdeathsigOutlivesTheGoroutineThatStartedIt(t *testing.T) {
	r := proc.NewReaper(proc.Options{})
	cmd := exec.Command("/bin/sh", "-c", "read line; exit 6")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	children := make(chan *proc.Child)
	go func() {
		c, err := r.Start(cmd)
		if err != nil {
			t.Error(err)
		}
		children <- c
	}()
	c := <-children
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if got := proc.ExitCode(c.State()); got != 6 {
		t.Errorf("exit code %d, want 6", got)
	}
	if err := c.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to a process that has ended: %v", err)
	}
}
