package testkit

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// cmdLease makes the records of "put -lease NAME" and "burst -lease NAME" end together.
func cmdLease(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	ctx, cancel := requestContext()
	defer cancel()
	switch {
	case len(args) == 1:
		resp, err := se.client.Grant(ctx, 600)
		if err != nil {
			return err
		}
		se.leases[args[0]] = resp.ID
		return nil
	case len(args) == 2 && args[0] == "-revoke" && se.leases[args[1]] != 0:
		_, err := se.client.Revoke(ctx, se.leases[args[1]])
		return err
	}
	return fmt.Errorf("usage: lease NAME | lease -revoke NAME")
}

// leased removes "-lease NAME" from the arguments and returns it as an option.
func leased(se *scriptEnv, args []string) ([]string, []clientv3.OpOption, error) {
	if len(args) < 2 || args[0] != "-lease" {
		return args, nil, nil
	}
	id := se.leases[args[1]]
	if id == 0 {
		return nil, nil, fmt.Errorf("no lease %s", args[1])
	}
	return args[2:], []clientv3.OpOption{clientv3.WithLease(id)}, nil
}

// cmdProxy puts a FaultProxy in front of a server; its address becomes $NAME.
func cmdProxy(ts *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) == 2 && !strings.HasPrefix(args[0], "-") {
		tb := scriptTB{TB: se.test, fail: ts.Fatalf, cleanup: ts.Defer}
		se.proxies[args[0]] = StartFaultProxy(tb, strings.TrimPrefix(args[1], "http://"))
		ts.Setenv(args[0], se.proxies[args[0]].Addr)
		return nil
	}
	if len(args) < 2 || se.proxies[args[1]] == nil {
		return fmt.Errorf("usage: proxy NAME TARGET | proxy -slow NAME DELAY | proxy -freeze|-cut|-join NAME")
	}
	p := se.proxies[args[1]]
	switch args[0] {
	case "-slow":
		by, err := time.ParseDuration(args[len(args)-1])
		if err != nil {
			return err
		}
		p.Slow(by)
	case "-freeze":
		p.Freeze()
	case "-cut":
		p.Cut()
	case "-join":
		p.Join()
	default:
		return fmt.Errorf("proxy has no %s", args[0])
	}
	return nil
}

// cmdSignalHAProxy sends a signal to the HAProxy of a daemon; STOP makes it a process that hangs.
func cmdSignalHAProxy(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 3 || se.daemons[args[2]] == nil || unix.SignalNum("SIG"+args[0]) == 0 {
		return fmt.Errorf("usage: signal-haproxy SIGNAL master|worker NAME, where NAME is a daemon")
	}
	pid := se.daemons[args[2]].cmd.Process.Pid
	for range map[string]int{"master": 1, "worker": 2}[args[1]] {
		var err error
		if pid, err = ServiceChild(pid); err != nil {
			return err
		}
	}
	return unix.Kill(pid, unix.SignalNum("SIG"+args[0]))
}

// cmdFiles limits the open files of a running daemon, as a mistake in a unit file would.
func cmdFiles(_ *testscript.TestScript, se *scriptEnv, args []string) error {
	if len(args) != 2 || se.daemons[args[1]] == nil {
		return fmt.Errorf("usage: files N NAME, where NAME is a daemon")
	}
	pid := strconv.Itoa(se.daemons[args[1]].cmd.Process.Pid)
	if out, err := exec.Command("prlimit", "--pid", pid, "--nofile="+args[0]+":").CombinedOutput(); err != nil {
		return fmt.Errorf("limit the open files: %w: %s", err, out)
	}
	return nil
}

// cmdMount mounts a tmpfs on a directory.
func cmdMount(ts *testscript.TestScript, _ *scriptEnv, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: mount DIR OPTIONS")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(exec.Command("mkdir", "-p", dir).Run())
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, args[1]); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	ts.Defer(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return nil
}
