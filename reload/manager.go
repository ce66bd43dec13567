package reload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nuncio/internal/haproxy"
)

// ErrStopped is Submit's answer once Run has begun to stop.
var ErrStopped = errors.New("reload: stopped")

// ExitError is Run's answer when it gives up on haproxy, or when haproxy ended a drain with an error.
type ExitError struct {
	Code    int    // haproxy's own exit code, 128+n after signal n
	Message string // haproxy's last words
}

func (e *ExitError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("haproxy ended with exit code %d", e.Code)
	}
	return fmt.Sprintf("haproxy ended with exit code %d: %s", e.Code, e.Message)
}

// SetupError is Run's answer when it could not begin: haproxy is missing or too old, or the state directory
// cannot be used. Trying again without a change of the set-up is of no use.
type SetupError struct {
	Err error
}

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap is the reason.
func (e *SetupError) Unwrap() error { return e.Err }

// Manager keeps one haproxy process running the newest set of files that was submitted. Run's goroutine owns
// everything but the published status.
type Manager struct {
	opts    Options
	board   *board
	metrics *metrics

	submits chan Desired
	hurried chan struct{} // closed by Hurry
	hurry   func()
	done    chan struct{}

	store   *store
	version haproxy.Version
	desired *Desired
	running running
	child   *instance // nil while no haproxy runs
	retry   pause     // of a failed apply
	restart pause     // of a haproxy that died
	crashes int
	said    complaint // of applies
	holds   holds     // of reloads that failed
	live    live
	saver   saver

	step           func(name string) // tests stop the process at a step
	reconcileEvery time.Duration
	settleTime     time.Duration
}

// running is what HAProxy has confirmed, or was started with.
type running struct {
	files haproxy.Files
	// saved are the files on disk, in the generation whose number generation has. They are older than files for a
	// moment after a change without a reload.
	saved      haproxy.Files
	generation Generation
	confirmed  bool // false after a reload whose outcome is unknown
	submitted  bool // false for the last good generation that was started without a Submit
}

// New validates the options and registers the metrics. It starts nothing and touches no file.
func New(opts Options) (*Manager, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	m := &Manager{
		opts:    opts,
		board:   newBoard(Status{State: Starting, Since: time.Now()}),
		submits: make(chan Desired), hurried: make(chan struct{}), done: make(chan struct{}),
		retry:   newPause(opts.RetryMin, opts.RetryMax),
		restart: newPause(restartMin, restartMax),
		holds:   holds{first: HoldFirst},
		live:    newLive(), saver: newSaver(opts.RetryMin, opts.RetryMax),
		step: func(string) {}, reconcileEvery: 10 * time.Second, settleTime: settleTime,
	}
	m.hurry = sync.OnceFunc(func() { close(m.hurried) })
	var err error
	m.metrics, err = newMetrics(opts.Registerer, m.board)
	if err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// Submit hands over the set of files that is to run from now on. It blocks while an apply is under way and
// returns when the set has been taken, not when it runs: see Status. A set that was taken replaces the one
// before it, also one that is being retried. The error is ctx's, or ErrStopped.
func (m *Manager) Submit(ctx context.Context, d Desired) error {
	select {
	case m.submits <- d:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.done:
		return ErrStopped
	}
}

// Hurry cuts a drain short, and the wait for a start or a reload that comes before it: haproxy is told to stop at once. A
// second TERM to nuncio means this. It has an effect before a drain too, once one begins.
func (m *Manager) Hurry() { m.hurry() }

// Status is what the Manager knows now.
func (m *Manager) Status() Status { return m.board.get() }

// Changed returns a channel that is closed at the next change of Status. Take it before reading Status.
func (m *Manager) Changed() <-chan struct{} { return m.board.bell() }
