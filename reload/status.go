package reload

import (
	"slices"
	"sync"
	"time"
)

// State names what a Manager is doing.
type State string

// The states of a Manager.
const (
	// Starting: Run has not got as far as waiting, or haproxy is being started.
	Starting State = "starting"
	// Waiting: there is nothing to run yet.
	Waiting State = "waiting"
	// Running: what was submitted last runs, confirmed by HAProxy.
	Running State = "running"
	// Applying: a new set of files is on its way into HAProxy.
	Applying State = "applying"
	// Degraded: the last apply failed, or haproxy has died; see Status.LastError.
	Degraded State = "degraded"
	// Draining: ctx has ended, requests under way may end.
	Draining State = "draining"
	// Stopped: Run has returned.
	Stopped State = "stopped"
)

func states() []State {
	return []State{Starting, Waiting, Running, Applying, Degraded, Draining, Stopped}
}

// Outcome names how an apply ended.
type Outcome string

// The results of an apply.
const (
	// Unchanged: HAProxy runs exactly these files already.
	Unchanged Outcome = "unchanged"
	// Started: haproxy was started with these files and has confirmed it.
	Started Outcome = "started"
	// Reloaded: HAProxy has confirmed a new worker with these files.
	Reloaded Outcome = "reloaded"
	// Runtime: HAProxy has confirmed commands that make it run these files; no process was replaced.
	Runtime Outcome = "runtime"
	// Rejected: nuncio or "haproxy -c" refuses the files; HAProxy was not touched.
	Rejected Outcome = "rejected"
	// Failed: something else went wrong (disk, a busy address, the reload); the old files are current again.
	Failed Outcome = "failed"
)

// Mode names the way that an apply takes.
type Mode string

// The modes of an apply.
const (
	// ModeNone: nothing has to be done.
	ModeNone Mode = "none"
	// ModeStart starts a haproxy process.
	ModeStart Mode = "start"
	// ModeReload makes the master replace its worker, which keeps the listeners.
	ModeReload Mode = "reload"
	// ModeRuntime changes the worker that serves, by commands of the Runtime API.
	ModeRuntime Mode = "runtime"
)

// Result is one finished attempt to get a set of files into HAProxy.
type Result struct {
	Time       time.Time     `json:"time"`
	Duration   time.Duration `json:"-"`
	Mode       Mode          `json:"mode"`
	Outcome    Outcome       `json:"result"`
	Revision   int64         `json:"revision"`
	Generation int64         `json:"generation,omitempty"`
	Digest     string        `json:"digest"`
	Reason     string        `json:"reason,omitempty"` // why this mode, or what went wrong
	// Servers and Commands count what changed without a reload.
	Servers  int `json:"servers,omitempty"`
	Commands int `json:"commands,omitempty"`
	// TemplateSet is Desired's.
	TemplateSet int64 `json:"template_set,omitempty"`
	// Taken are the addresses that could not be had, where that is why it failed.
	Taken []Taken `json:"-"`
	// ReloadFailed: HAProxy was reloaded, and could not. That may have cost requests, which what is found out beforehand
	// never does.
	ReloadFailed bool `json:"-"`
}

func (a Result) bad() bool { return a.Outcome == Rejected || a.Outcome == Failed }

// Status is a copy of what a Manager knows about itself.
type Status struct {
	State State     `json:"state"`
	Since time.Time `json:"since"` // when State began
	// Ready: a submitted set has been applied and confirmed, and haproxy runs and takes new connections.
	Ready bool `json:"ready"`

	DesiredRevision int64  `json:"desired_revision"`
	DesiredDigest   string `json:"desired_digest,omitempty"`
	// Applied... describe what HAProxy has confirmed; they stay while haproxy is down.
	AppliedRevision   int64     `json:"applied_revision"`
	AppliedGeneration int64     `json:"applied_generation"`
	AppliedDigest     string    `json:"applied_digest,omitempty"`
	AppliedTime       time.Time `json:"applied_time,omitzero"`

	// LastError is empty while nothing is wrong.
	LastError     string    `json:"last_error,omitempty"`
	LastErrorTime time.Time `json:"last_error_time,omitzero"`
	// Retry is when a failed apply is tried again; zero when none is due.
	Retry time.Time `json:"retry,omitzero"`

	// Applies are the last attempts, oldest first.
	Applies []Result `json:"applies,omitempty"`

	Version    string `json:"haproxy_version,omitempty"`
	MasterPid  int    `json:"master_pid,omitempty"` // 0 while no haproxy runs
	WorkerPid  int    `json:"worker_pid,omitempty"`
	OldWorkers int    `json:"old_workers"` // workers of earlier reloads that still have sessions
	Leaving    int    `json:"leaving"`     // servers that left without a reload and that something may still use
	Restarts   int    `json:"restarts"`    // starts made necessary by the death of a haproxy
}

const keepApplies = 50

// board is the published copy of the loop's state, and the bell that rings when it changes.
type board struct {
	mu      sync.Mutex
	status  Status
	changed chan struct{}
}

func newBoard(s Status) *board {
	return &board{status: s, changed: make(chan struct{})}
}

func (b *board) get() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Applies = slices.Clone(s.Applies)
	return s
}

func (b *board) bell() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *board) update(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.status)
	close(b.changed)
	b.changed = make(chan struct{})
}
