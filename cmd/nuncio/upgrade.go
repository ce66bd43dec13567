package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"nuncio/internal/proc"
	"nuncio/status"
)

type upgradeCmd struct {
	runningFlags
	Timeout time.Duration `default:"60s" help:"How long to wait until the new nuncio serves."`
}

// Run makes the running nuncio replace itself, and waits until the new one has taken over.
func (c *upgradeCmd) Run(ctx context.Context, s *streams) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var before, now status.Overview
	if err := c.client().Get(ctx, "/v1/status", &before); err != nil {
		return notRunning(err)
	}
	stop := showWaiting(s, "waiting for the new nuncio")
	defer stop()
	var next status.Upgrade
	if err := c.client().Do(ctx, status.OrderUpgrade, nil, &next); err != nil {
		return notRunning(err)
	}
	for {
		// Until the new one has opened its socket again nothing answers, or the old one does.
		err := c.client().Get(ctx, "/v1/status", &now)
		if err == nil && !now.Started.Equal(before.Started) && (now.Ready || !before.Ready) {
			break
		}
		select {
		case <-ctx.Done():
			return cannotStart("the new nuncio does not serve after %v; see its log and: nuncio status", c.Timeout)
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop()
	kept := "HAProxy was restarted"
	switch {
	case now.HAProxy.MasterPid == before.HAProxy.MasterPid && now.HAProxy.WorkerPid == before.HAProxy.WorkerPid:
		kept = "HAProxy was not touched"
	case now.HAProxy.MasterPid == before.HAProxy.MasterPid:
		kept = "HAProxy was reloaded"
	}
	fmt.Fprintf(s.out, "nuncio %s runs instead of %s. %s.\n", now.Nuncio, before.Nuncio, kept)
	return nil
}

// successor is how "nuncio run" ends when a new program is to take its place, in the same process. It is an error only by form.
type successor struct{ path string }

func (n *successor) Error() string { return "to be replaced by " + n.path }

// replaceSelf executes the new program with this one's arguments. HAProxy stays a child of the process, so PID 1 may do this
// too. It returns only if even this program cannot be executed again.
func replaceSelf(n *successor, s *streams) error {
	argv := append([]string{os.Args[0]}, s.args...)
	err := syscall.Exec(n.path, argv, s.environ)
	fmt.Fprintf(s.err, "nuncio: %s cannot be executed, going on with the program that runs: %v\n", n.path, err)
	return errors.Join(err, syscall.Exec("/proc/self/exe", argv, s.environ))
}

// tryLimit bounds the trial of a new program.
const tryLimit = 20 * time.Second

// tryProgram finds out whether the program that is on disk now could start with the arguments, variables and templates of this
// one: as PID 1 it would end the container otherwise. It returns the program's path and version.
func tryProgram(ctx context.Context, procs *proc.Reaper, s *streams) (path, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	if path, err = exec.LookPath(os.Args[0]); err != nil {
		return "", "", err
	}
	cmd := exec.Command(path, append(slices.Clip(s.args), "--try")...)
	cmd.Args[0], cmd.Env = os.Args[0], s.environ
	res, err := procs.Output(ctx, cmd, proc.DefaultLimit)
	if err != nil {
		return "", "", err
	}
	version, ok := strings.CutPrefix(strings.TrimSpace(string(res.Stdout)), tried)
	if res.ExitCode != 0 || !ok {
		return "", "", fmt.Errorf("%s does not take this nuncio's settings, so nothing was changed: %s", path,
			strings.TrimSpace(string(res.Stderr)+string(res.Stdout)))
	}
	return path, version, nil
}

// tried is what "nuncio run --try" prints, followed by the version.
const tried = "settings accepted by nuncio "

// upgrade leaves HAProxy alone and ends everything else, if the program on disk can take over.
func (d *daemon) upgrade(ctx context.Context) (status.Upgrade, error) {
	path, version, err := tryProgram(ctx, d.reaper, d.streams)
	if err != nil {
		return status.Upgrade{}, err
	}
	if !d.next.CompareAndSwap(nil, &successor{path}) {
		return status.Upgrade{}, errors.New("an upgrade is under way")
	}
	d.log.Info("upgrading", "version", version, "path", path)
	// An apply that is under way comes to its end first, and the answer has to leave before the socket closes.
	go func() {
		if err := d.manager.HandOver(context.WithoutCancel(ctx)); err != nil {
			d.next.Store(nil) // TERM came first
		}
	}()
	return status.Upgrade{Version: version}, nil
}
