package status

import (
	"time"

	"nuncio/internal/catalog"
)

// Overview is the document of /v1/status: what nuncio is doing, without the services themselves. Members may be
// added to it; none changes its meaning while Document stays 1.
type Overview struct {
	Document int       `json:"document"` // version of this form: 1
	Nuncio   string    `json:"nuncio"`   // version of the program
	Time     time.Time `json:"time"`
	State    string    `json:"state"`
	Since    time.Time `json:"since,omitzero"`
	Ready    bool      `json:"ready"`
	// Reasons says why Ready is false or State is not "running".
	Reasons []string `json:"reasons"`
	// InStep: HAProxy has confirmed the files made from the newest revision and the newest templates.
	InStep bool  `json:"in_step"`
	Pinned *Pin  `json:"pinned,omitempty"`
	Held   *Held `json:"held,omitempty"`

	Desired   Desired   `json:"desired"`
	Applied   Applied   `json:"applied"`
	Store     Store     `json:"store"`
	Templates Templates `json:"templates"`
	HAProxy   HAProxy   `json:"haproxy"`

	// Error is why the last apply failed; empty while nothing is wrong.
	Error     string    `json:"error,omitempty"`
	ErrorTime time.Time `json:"error_time,omitzero"`
	Retry     time.Time `json:"retry,omitzero"`

	// Applies are the last attempts, oldest first.
	Applies []Apply `json:"applies"`

	// The rest is filled in by this package, from the snapshot.
	Services    int           `json:"services"`
	Instances   int           `json:"instances"`
	Quarantined []Quarantined `json:"quarantined"`
	Conflicts   []Conflict    `json:"conflicts"`
}

// Pin says that an operator holds HAProxy at one generation.
type Pin struct {
	Generation int64     `json:"generation"`
	Since      time.Time `json:"since"`
}

// Held says what the shrink guard keeps that etcd no longer has.
type Held struct {
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Instances int       `json:"instances"`
	Remaining int       `json:"remaining"`
	Services  []string  `json:"services"`
}

// Desired is what shall run.
type Desired struct {
	Revision int64  `json:"revision"`
	Digest   string `json:"digest,omitempty"`
}

// Applied is what HAProxy has confirmed.
type Applied struct {
	Revision   int64     `json:"revision"`
	Generation int64     `json:"generation"`
	Digest     string    `json:"digest,omitempty"`
	Time       time.Time `json:"time,omitzero"`
}

// Store is how etcd is doing.
type Store struct {
	Endpoints []string `json:"endpoints"`
	Prefix    string   `json:"prefix"`
	Synced    bool     `json:"synced"`
	Revision  int64    `json:"revision"`
	// LastSync is when etcd last confirmed that nothing is missing here; SyncAge is the seconds since then, -1
	// before the first time.
	LastSync time.Time `json:"last_sync,omitzero"`
	SyncAge  float64   `json:"seconds_since_sync"`
	Error    string    `json:"error,omitempty"`
	Hint     string    `json:"hint,omitempty"`
}

// Templates is how the templates are doing.
type Templates struct {
	Source string `json:"source"` // the directory, or "shipped"
	// Error is why the newest templates are not in use, with the line and a caret where there is one.
	Error string `json:"error,omitempty"`
	// RenderError is why the templates in use cannot render the newest snapshot.
	RenderError string    `json:"render_error,omitempty"`
	Refused     []Refused `json:"refused"`
}

// Refused is a line that was left out of a file because of a value.
type Refused struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Template string `json:"template"`
	Value    string `json:"value"`
	Reason   string `json:"reason"`
}

// HAProxy is how the process is doing.
type HAProxy struct {
	Version    string `json:"version"`
	MasterPid  int    `json:"master_pid"`
	WorkerPid  int    `json:"worker_pid"`
	OldWorkers int    `json:"old_workers"`
	Restarts   int    `json:"restarts"`
}

// Apply is one finished attempt to get files into HAProxy.
type Apply struct {
	Time       time.Time `json:"time"`
	Seconds    float64   `json:"duration_seconds"`
	Mode       string    `json:"mode"`
	Result     string    `json:"result"`
	Revision   int64     `json:"revision"`
	Generation int64     `json:"generation,omitempty"`
	// Previous is the generation that ran before; 0 when it is not known.
	Previous int64  `json:"previous_generation,omitempty"`
	Reason   string `json:"reason,omitempty"`
	// Servers and Commands count what the Runtime API changed, when no new process was needed.
	Servers  int `json:"servers,omitempty"`
	Commands int `json:"commands,omitempty"`
}

// Bad says whether the attempt came to nothing.
func (a Apply) Bad() bool { return a.Result == "rejected" || a.Result == "failed" }

// Quarantined is a record that breaks the contract and is left out. Reason and Value have what may be a secret hidden.
type Quarantined struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	Value  string `json:"value"`
}

// Conflict is a setting on which the instances of one service disagree.
type Conflict struct {
	Service  string `json:"service"`
	Key      string `json:"key"`
	Winner   string `json:"winner"`
	Value    string `json:"value"`
	Loser    string `json:"loser"`
	Rejected string `json:"rejected"`
}

// Generation is one set of files on disk.
type Generation struct {
	Number   int64     `json:"generation"`
	Revision int64     `json:"revision"`
	Digest   string    `json:"digest"`
	Created  time.Time `json:"created"`
	Current  bool      `json:"current"`
}

// Unheard says that nothing is wrong but that etcd is silent: HAProxy may be behind without anybody here knowing.
func (o *Overview) Unheard() bool { return o.State == "running" && o.Store.Error != "" }

// overview completes what the wiring says with what the snapshot says.
func (s *Server) overview() Overview {
	o := s.opts.Overview()
	o.Document, o.Time = 1, time.Now().UTC()
	o.Store.SyncAge = -1
	if !o.Store.LastSync.IsZero() {
		o.Store.SyncAge = max(o.Time.Sub(o.Store.LastSync).Seconds(), 0)
	}
	// An empty list is [] to a program that reads this, not null.
	o.Reasons = append([]string{}, o.Reasons...)
	o.Applies = append([]Apply{}, o.Applies...)
	o.Templates.Refused = append([]Refused{}, o.Templates.Refused...)
	endpoints := []string{}
	for _, e := range o.Store.Endpoints {
		endpoints = append(endpoints, hideURL(e))
	}
	o.Store.Endpoints = endpoints
	o.Quarantined, o.Conflicts = []Quarantined{}, []Conflict{}
	snap := s.snapshot()
	o.Services, o.Instances = snap.Counts()
	for _, q := range snap.Quarantined {
		o.Quarantined = append(o.Quarantined, hideRecord(q))
	}
	for _, svc := range snap.Services {
		for _, c := range svc.Conflicts {
			if secret(c.Key) {
				c.Value, c.Rejected = hidden, hidden
			}
			o.Conflicts = append(o.Conflicts, Conflict{svc.Name, c.Key, c.Winner, c.Value, c.Loser, c.Rejected})
		}
	}
	return o
}

// snapshot is never nil.
func (s *Server) snapshot() *catalog.Snapshot {
	if s.opts.Snapshot != nil {
		if snap := s.opts.Snapshot(); snap != nil {
			return snap
		}
	}
	return &catalog.Snapshot{}
}
