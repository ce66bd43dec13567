package register

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"nuncio/internal/proc"
)

// CommandOptions configures RunWithCommand.
type CommandOptions struct {
	// Command is a command that was not started.
	Command *exec.Cmd
	// Address is where it will accept connections, as host:port.
	Address string
	// StartTimeout is how long that may take. A command that takes longer is registered all the same: the proxies
	// have health checks of their own.
	StartTimeout time.Duration
	// StopTimeout is how long the command may take to end before it is killed.
	StopTimeout time.Duration
	Log         *slog.Logger
}

const listenPoll = 50 * time.Millisecond

// RunWithCommand runs a command and its registrar: it registers once the command accepts connections, until a signal
// comes or the command ends. The record is removed before the signal is passed on, so that nothing is sent to a server
// that is ending. It returns the command's exit code. Errors are ErrClaimed, for which the command is killed, and those of
// starting the command; a failing etcd is logged only.
func (r *Registrar) RunWithCommand(ctx context.Context, o CommandOptions) (code int, err error) {
	o.Command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	reaper := proc.NewReaper(proc.Options{Logger: o.Log})
	received := make(chan os.Signal, 16)
	signal.Notify(received, passedOn...)
	defer signal.Stop(received)

	ended, end := context.WithCancel(ctx) // the command has ended
	registered, deregister := context.WithCancel(ended)
	defer deregister()
	killed, kill := context.WithCancel(context.Background())
	defer kill()
	passed, deregistered := make(chan os.Signal, 16), make(chan struct{})
	var group errgroup.Group
	var claimed error
	group.Go(func() error { return reaper.Run(ended) })
	group.Go(func() (err error) {
		defer end()
		code, err = reaper.RunForeground(killed, o.Command, passed, o.StopTimeout)
		return err
	})
	group.Go(func() error {
		defer close(deregistered)
		if !o.accepting(registered) {
			return nil
		}
		err := r.Run(registered)
		switch {
		case errors.Is(err, ErrClaimed):
			claimed = err
			kill() // a server that is not registered would run unreached
		case err != nil:
			o.Log.Warn("request to etcd failed at the end, the command's exit code is kept", "err", err)
		}
		return nil
	})
	group.Go(func() error {
		o.passOn(ended, received, passed, func() {
			deregister()
			<-deregistered
		}, kill)
		return nil
	})
	err = errors.Join(group.Wait(), claimed) // before code is read
	return code, err
}

// accepting waits until the address accepts a connection or StartTimeout is over. It returns false when ctx ended before.
func (o CommandOptions) accepting(ctx context.Context) bool {
	deadline := time.Now().Add(o.StartTimeout)
	dialer := net.Dialer{Timeout: time.Second}
	for ctx.Err() == nil {
		conn, err := dialer.DialContext(ctx, "tcp", o.Address)
		if err == nil {
			_ = conn.Close() // nothing is sent
			return true
		}
		if time.Now().After(deadline) {
			return true
		}
		pause(ctx, listenPoll)
	}
	return false
}

// passedOn are the signals that a command gets. Those of the Go runtime (URG) and of terminals that stop a process are
// none of its business: notified of every signal, the channel would fill up and drop a TERM.
var passedOn = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	syscall.SIGTTIN, syscall.SIGTTOU,
}

// passOn passes signals on to the command until it has ended; those that end it only after deregister has removed the record.
func (o CommandOptions) passOn(ended context.Context, from <-chan os.Signal, to chan<- os.Signal, deregister, kill func()) {
	for {
		select {
		case <-ended.Done():
			return
		case sig := <-from:
			switch sig {
			case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT:
				deregister()
				time.AfterFunc(o.StopTimeout, kill) // the first call counts
			}
			select {
			case to <- sig:
			case <-ended.Done():
			}
		}
	}
}
