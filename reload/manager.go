package reload

import (
	"context"
	"fmt"
	"sync"
	"time"

	"nuncio/internal/haproxy"
)

// Manager keeps one haproxy process running the newest set of files that was submitted. Run's goroutine owns
// everything but the published status.
type Manager struct {
	opts    Options
	board   *board
	metrics *metrics

	submits  chan Desired
	requests chan request
	outdated chan struct{}
	hurried  chan struct{} // closed by StopNow
	hurry    func()
	done     chan struct{}

	store   *store
	version haproxy.Version
	desired *Desired
	direct  bool // desired came by Apply
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
		submits: make(chan Desired), requests: make(chan request), outdated: make(chan struct{}, 1), hurried: make(chan struct{}), done: make(chan struct{}),
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

// request is a call of Apply on its way to Run's goroutine.
type request struct {
	desired Desired
	reply   chan answer // has room for the one answer
}

type answer struct {
	result Result
	err    error
}

// Apply makes one attempt to get files into HAProxy and returns once HAProxy has confirmed or refused them. One attempt runs
// at a time; further callers wait for their turn. The end of ctx ends the waiting: an attempt that has begun goes on.
//
// Errors are ErrStopped, ErrReloadNeeded, *CheckError for files that were rejected, *BindError for addresses in use,
// *ReloadError for a reload that HAProxy did not manage, and others, such as those of a full disk. After an error what ran
// before goes on. The Result is complete in every case but the first two.
func (m *Manager) Apply(ctx context.Context, d Desired) (Result, error) {
	r := request{desired: d, reply: make(chan answer, 1)}
	select {
	case m.requests <- r:
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	case <-m.done:
		return Result{}, ErrStopped
	}
	select {
	case a := <-r.reply:
		return a.result, a.err
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// Outdated returns a channel that receives a value when HAProxy may no longer run what Apply confirmed: it was restarted
// from an older generation, or a change made by commands was rejected as a file. Call Apply again then.
func (m *Manager) Outdated() <-chan struct{} { return m.outdated }

func (m *Manager) signalOutdated() {
	select {
	case m.outdated <- struct{}{}:
	default: // one signal is enough
	}
}

// StopNow cuts a drain short, and the wait for a start or a reload that comes before it: haproxy is told to stop at once. A
// second TERM to nuncio means this. It has an effect before a drain too, once one begins.
func (m *Manager) StopNow() { m.hurry() }

// Status is what the Manager knows now.
func (m *Manager) Status() Status { return m.board.get() }

// Changed returns a channel that is closed at the next change of Status. Take it before reading Status.
func (m *Manager) Changed() <-chan struct{} { return m.board.bell() }
