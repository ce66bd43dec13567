package testkit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

func cmdKillHAProxy(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	generations := map[string]int{"master": 1, "worker": 2, "inner-master": 2, "inner-worker": 3}
	if len(args) != 2 || se.daemons[args[1]] == nil || generations[args[0]] == 0 {
		return fmt.Errorf("usage: kill-haproxy [inner-]master|worker NAME, where NAME is a daemon")
	}
	pid := se.daemons[args[1]].cmd.Process.Pid
	for range generations[args[0]] {
		var err error
		if pid, err = ServiceChild(pid); err != nil {
			return err
		}
	}
	return unix.Kill(pid, unix.SIGKILL)
}

// ServiceChild waits until exactly one child of a process is a nuncio or a running HAProxy, and returns its number. There
// may be more children for a moment: orphans, an HAProxy that checks a file, a worker that a reload has replaced.
func ServiceChild(parent int) (int, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		all, err := Children(parent)
		if err != nil {
			return 0, err
		}
		var found []int
		for _, pid := range all {
			words, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if err == nil && (bytes.Contains(words, []byte("\x00-W\x00")) || bytes.HasPrefix(words, []byte("nuncio\x00"))) {
				found = append(found, pid)
			}
		}
		if len(found) == 1 {
			return found[0], nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("process %d has children %v, of which %v are a nuncio or an HAProxy; want one", parent, all, found)
		}
	}
}

// cmdOrphans starts a shell in the namespace that ends before its children do: PID 1 inherits them.
func cmdOrphans(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 2 || se.daemons[args[1]] == nil {
		return fmt.Errorf("usage: orphans N NAME, where NAME is a daemon")
	}
	pid, err := inner(se.daemons[args[1]])
	if err != nil {
		return err
	}
	script := fmt.Sprintf("i=0; while [ $i -lt %s ]; do (sleep 0.1; exit 7) & i=$((i+1)); done", args[0])
	out, err := exec.Command("nsenter", "--target", strconv.Itoa(pid), "--pid", "--mount", "sh", "-c", script).CombinedOutput()
	if err != nil {
		return fmt.Errorf("leave orphans: %w: %s", err, out)
	}
	return nil
}

// cmdExits runs a program through exec, which keeps its output for the stdout and stderr commands.
func cmdExits(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: exits CODE PROGRAM [ARG]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if strconv.Itoa(code) != args[0] {
		return fmt.Errorf("exit code %d, want %s", code, args[0])
	}
	return nil
}

func checkZombies(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 3 || se.daemons[args[2]] == nil {
		return fmt.Errorf("usage: zombies N NAME, where NAME is a daemon")
	}
	pid, err := inner(se.daemons[args[2]])
	if err != nil {
		return err
	}
	found, err := Children(pid)
	if err != nil {
		return err
	}
	zombies := 0
	for _, child := range found {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child))
		if err != nil {
			continue // reaped since
		}
		// The name, in parentheses, may hold anything; the state follows the last one.
		if after := stat[bytes.LastIndexByte(stat, ')')+1:]; bytes.HasPrefix(after, []byte(" Z")) {
			zombies++
		}
	}
	if strconv.Itoa(zombies) != args[1] {
		return fmt.Errorf("%d zombies among the %d children of PID 1, want %s", zombies, len(found), args[1])
	}
	return nil
}

// inner returns the process that unshare made PID 1 of its namespace.
func inner(d *Daemon) (int, error) { return ServiceChild(d.cmd.Process.Pid) }

// Children returns the processes that a process has started and not yet waited for.
func Children(parent int) ([]int, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		return nil, err
	}
	var found []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended since
		}
		for field := range strings.FieldsSeq(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			found = append(found, pid)
		}
	}
	return found, nil
}

// Daemon is a program in the background of a script.
type Daemon struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
}

func startDaemon(ts *testscript.TestScript, name, program string, args []string) (*Daemon, error) {
	path, err := lookPath(program, ts.Getenv("PATH"))
	if err != nil {
		return nil, err
	}
	d := &Daemon{log: ts.MkAbs(name + ".log"), done: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	d.cmd = exec.Command(path, args...)
	d.cmd.Args[0] = program
	d.cmd.Dir = ts.MkAbs(".")
	d.cmd.Stdout, d.cmd.Stderr = out, out
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "WORK"} {
		d.cmd.Env = append(d.cmd.Env, name+"="+ts.Getenv(name))
	}
	for pair := range strings.FieldsSeq(ts.Getenv("DAEMON_ENV")) {
		d.cmd.Env = append(d.cmd.Env, pair)
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait() // expect-exit reads the status from ProcessState
		close(d.done)
	}()
	return d, nil
}

// Kill ends the daemon: with TERM first, so that it can end its own children.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Signal(unix.SIGTERM) // it may have ended already
	select {
	case <-d.done:
		return
	case <-time.After(3 * time.Second):
	}
	_ = d.cmd.Process.Signal(unix.SIGTERM) // the second one ends the draining
	select {
	case <-d.done:
		return
	case <-time.After(3 * time.Second):
	}
	_ = d.cmd.Process.Kill()
	<-d.done
}

func (d *Daemon) tail() string {
	text, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(text, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-60):], []byte("\n")))
}

func lookPath(program, path string) (string, error) {
	if strings.Contains(program, "/") {
		return program, nil
	}
	for dir := range strings.SplitSeq(path, ":") {
		if info, err := os.Stat(dir + "/" + program); err == nil && info.Mode()&0o111 != 0 {
			return dir + "/" + program, nil
		}
	}
	return "", fmt.Errorf("no program %s in PATH", program)
}
