package reload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/generation"
	"nuncio/reload/internal/process"
)

// Manager keeps one haproxy process running the set of files that was applied last. Run's goroutine owns everything but the
// channels and the published status.
type Manager struct {
	opts    Options
	status  *broadcaster
	metrics *metrics

	requests chan request
	outdated chan struct{}
	leaving  chan struct{} // by HandOver
	// handedOver: haproxy belongs to the next Manager.
	handedOver atomic.Bool
	stopNow    chan struct{} // closed by StopNow
	stopOnce   func()
	done       chan struct{} // closed when Run returns

	store   *generation.Store
	desired *Desired // of the last attempt
	running running
	worker  worker
	child   *process.Process // nil while no haproxy runs
	repair  backoff          // of a worker whose state is not known
	restart backoff          // of a haproxy that has exited
	crashes int
	saver   saver
	// filesLost: the files of the current generation were changed from outside and cannot be restored.
	filesLost  bool
	socketsDue time.Time // no attempt before to have HAProxy make its deleted sockets again
	commandLog commandLog
	// recorded is what the next nuncio will read about child; recordFails says that it could not be kept.
	recorded    process.Record
	recordFails bool
	ahead       bool // child was adopted, with changes that it took as commands and that are not on disk
}

// running is what HAProxy has confirmed, or was started with.
type running struct {
	files haproxy.Files
	// saved are the files on disk, in the generation whose number generation has. They are older than files for a
	// moment after a change without a reload.
	saved      haproxy.Files
	generation Generation
	confirmed  bool // false when the worker may differ from files: only a reload makes it certain again
	// unknown: HAProxy did not say how the last reload ended, so perhaps nothing serves. Otherwise a worker that is not
	// confirmed serves an earlier confirmed state, changed in part by commands or from outside: that is ready all the same,
	// and a drift repair takes no nuncio out of its load balancer.
	unknown bool
	applied bool // false for the last good generation that was started without an Apply
}

// New validates the options and registers the metrics. It starts nothing and touches no file.
func New(opts Options) (*Manager, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	m := &Manager{
		opts:     opts,
		status:   newBroadcaster(Status{State: Starting, Since: time.Now()}),
		requests: make(chan request), outdated: make(chan struct{}, 1), leaving: make(chan struct{}),
		stopNow: make(chan struct{}), done: make(chan struct{}),
		repair:  newBackoff(repairMin, repairMax),
		restart: newBackoff(restartMin, restartMax),
		worker:  newWorker(opts.DriftInterval), saver: newSaver(), commandLog: commandLog{log: opts.Logger},
	}
	m.stopOnce = sync.OnceFunc(func() { close(m.stopNow) })
	var err error
	if m.metrics, err = newMetrics(opts.Registerer, m.status); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
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

// Apply makes one attempt to get files into HAProxy and returns once HAProxy has confirmed or rejected them. One attempt runs
// at a time; further callers wait for their turn. The end of ctx ends the waiting: an attempt that has begun goes on.
//
// Errors are ErrStopped, ErrReloadNeeded, *CheckError for files that were rejected, *BindError for addresses in use,
// *ReloadError for a reload that HAProxy could not do, and others, such as those of a full disk. After an error the running
// configuration goes on. Nothing tries again: that is the caller's decision. With ErrStopped the Result is empty, and with
// ErrReloadNeeded unless a part was applied.
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

// Outdated returns a channel that receives a value when HAProxy may no longer run what Apply confirmed: it does not start with
// it, it was started with an older generation, or it took a change as commands and then rejected it as a file. Call Apply again
// then.
func (m *Manager) Outdated() <-chan struct{} { return m.outdated }

func (m *Manager) signalOutdated() {
	select {
	case m.outdated <- struct{}{}:
	default: // one signal is enough
	}
}

// StopNow cuts a drain short, and the wait for a start or a reload that comes before it: haproxy stops at once. A
// second TERM to nuncio means this. Called before a drain, it takes effect when one begins.
func (m *Manager) StopNow() { m.stopOnce() }

// Status returns what the Manager knows now.
func (m *Manager) Status() Status { return m.status.get() }

// Changed returns a channel that is closed at the next change of Status. Take it before reading Status.
func (m *Manager) Changed() <-chan struct{} { return m.status.next() }
