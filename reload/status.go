package reload

import (
	"slices"
	"sync"
	"time"

	"nuncio/internal/haproxy"
)

// Outcome names how an attempt ended.
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
	// Rejected: nuncio or "haproxy -c" rejects the files; HAProxy was not touched.
	Rejected Outcome = "rejected"
	// Failed: something else went wrong (disk, an address in use, the reload); the old files are current again.
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
	// Files is what HAProxy runs now, where that is only a part of Desired's: with ErrReloadNeeded.
	Files haproxy.Files `json:"-"`
}

// Failed reports that the attempt came to nothing.
func (r Result) Failed() bool { return r.Outcome == Rejected || r.Outcome == Failed }

// Status is a copy of what a Manager knows about itself.
type Status struct {
	State State     `json:"state"`
	Since time.Time `json:"since"` // when State began
	// Ready: haproxy runs, takes new connections and serves what an Apply has confirmed, be it older than the desired files. It
	// stays true while a difference that was found in the worker is undone by a reload.
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

	// Applies are the last attempts, oldest first.
	Applies []Result `json:"applies,omitempty"`

	Version    string `json:"haproxy_version,omitempty"`
	MasterPid  int    `json:"master_pid,omitempty"` // 0 while no haproxy runs
	WorkerPid  int    `json:"worker_pid,omitempty"`
	OldWorkers int    `json:"old_workers"` // workers of earlier reloads that still have sessions
	Leaving    int    `json:"leaving"`     // servers and backends that are out of service until nothing uses them
	Restarts   int    `json:"restarts"`    // exits of haproxy that were not asked for
}

const keepApplies = 50

// broadcaster is the published copy of the loop's state. It tells readers of each change.
type broadcaster struct {
	mu      sync.Mutex
	status  Status
	changed chan struct{}
}

func newBroadcaster(s Status) *broadcaster {
	return &broadcaster{status: s, changed: make(chan struct{})}
}

func (b *broadcaster) get() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Applies = slices.Clone(s.Applies)
	return s
}

// next returns a channel that is closed at the next change.
func (b *broadcaster) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.changed
}

func (b *broadcaster) update(f func(*Status)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.status)
	close(b.changed)
	b.changed = make(chan struct{})
}
