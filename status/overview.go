package status

import (
	"cmp"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/certs"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/render"
	"nuncio/watch"
)

// Overview is the document of /v1/status: what nuncio is doing, without the services themselves. Members may be
// added to it; none changes its meaning while Document stays 1.
type Overview struct {
	Document int          `json:"document"` // version of this form: 1
	Nuncio   string       `json:"nuncio"`   // version of the program
	Started  time.Time    `json:"started"`  // tells one run of the program from the next
	Time     time.Time    `json:"time"`
	State    reload.State `json:"state"`
	Since    time.Time    `json:"since,omitzero"`
	Ready    bool         `json:"ready"`
	// Reasons says why Ready is false or State is not "running".
	Reasons []string `json:"reasons"`
	// InStep: HAProxy has confirmed the files made from the newest revision and the newest templates.
	InStep     bool                  `json:"in_step"`
	RolledBack *reconcile.RolledBack `json:"rolled_back,omitempty"`
	Frozen     *reconcile.Frozen     `json:"frozen,omitempty"`
	Held       *reconcile.Hold       `json:"held,omitempty"`
	HeldKeys   *reconcile.KeyHold    `json:"held_keys,omitempty"`

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

	Services    int           `json:"services"`
	Instances   int           `json:"instances"`
	Quarantined []Quarantined `json:"quarantined"`
	Conflicts   []Conflict    `json:"conflicts"`
}

// Desired is what should run.
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
	watch.StoreStatus

	Prefix string `json:"prefix"`
	// SyncAge is the seconds since etcd last confirmed that nothing is missing here; -1 before the first time.
	SyncAge float64 `json:"seconds_since_sync"`
}

// Templates is how the templates are doing.
type Templates struct {
	Source string `json:"source"` // the directory, or "shipped"
	// Trust is the warning about --trust-values; empty without it.
	Trust string `json:"trust,omitempty"`
	// Error is why the newest templates are not in use, with the line and a caret where there is one.
	Error string `json:"error,omitempty"`
	// RenderError is why the templates in use cannot render the newest snapshot.
	RenderError string           `json:"render_error,omitempty"`
	Dropped     []render.Dropped `json:"dropped"`
	// Unmet has the wishes of services that the templates in use do not fulfil.
	Unmet []render.Unmet `json:"unmet"`
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
	reload.Result

	Seconds float64 `json:"duration_seconds"`
}

// Quarantined is a record that is not served. Its value is not shown: it may hold a secret that nothing marks as one.
type Quarantined struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
}

// Conflict is a setting on which the instances of one service disagree.
type Conflict struct {
	Service string `json:"service"`
	catalog.Conflict
}

// StoreSilent reports that nothing is wrong but that etcd does not answer: HAProxy may be behind without anything here
// knowing.
func (o *Overview) StoreSilent() bool { return o.State == reload.Running && o.Store.Err != "" }

// OnlyTemplates reports that HAProxy runs what etcd says, and only the newest templates are not in use.
func (o *Overview) OnlyTemplates() bool {
	return o.Templates.Error != "" && o.Templates.RenderError == "" && o.Ready && o.Store.Synced && o.Store.Err == "" &&
		o.RolledBack == nil && o.Frozen == nil && o.Held == nil && o.HeldKeys == nil && o.Desired.Digest == o.Applied.Digest
}

// overview makes the document of one moment.
func (s *Server) overview(m *moment) Overview {
	a := &m.applier
	o := Overview{
		Document: 1, Nuncio: s.opts.Version, Started: s.started, Time: m.time, State: m.state(), Since: a.Since, Ready: a.Ready,
		// An empty list is [] to a program that reads this, not null.
		Reasons: append([]string{}, m.reasons()...), InStep: m.inStep(), RolledBack: m.reconciler.RolledBack, Frozen: m.reconciler.Frozen, Held: m.reconciler.Hold, HeldKeys: m.reconciler.KeyHold,
		Desired: Desired{max(a.DesiredRevision, m.snapshot().Revision), m.desiredDigest()},
		Applied: Applied{a.AppliedRevision, a.AppliedGeneration, a.AppliedDigest, a.AppliedTime},
		Store:   Store{m.store, s.opts.Prefix, -1},
		Templates: Templates{
			cmp.Or(s.opts.Templates, "shipped"), m.trust(), m.reconciler.TemplatesError, m.reconciler.RenderError,
			append([]render.Dropped{}, m.reconciler.Dropped...), unmet(m.reconciler.Unmet),
		},
		HAProxy: HAProxy{a.Version, a.MasterPid, a.WorkerPid, a.OldWorkers, a.Restarts},
		Error:   a.LastError, ErrorTime: a.LastErrorTime, Retry: m.reconciler.Retry, Applies: []Apply{},
		Quarantined: []Quarantined{}, Conflicts: []Conflict{},
	}
	for _, result := range a.Applies {
		o.Applies = append(o.Applies, Apply{result, result.Duration.Seconds()})
	}
	if !m.store.LastSync.IsZero() {
		o.Store.SyncAge = max(m.time.Sub(m.store.LastSync).Seconds(), 0)
	}
	o.Store.Endpoints = []string{}
	for _, e := range m.store.Endpoints {
		o.Store.Endpoints = append(o.Store.Endpoints, hideURL(e))
	}
	snap := m.snapshot()
	o.Services, o.Instances = snap.Counts()
	for _, q := range snap.Quarantined {
		o.Quarantined = append(o.Quarantined, Quarantined{q.Key, q.Reason})
	}
	for _, svc := range snap.Services {
		for _, c := range svc.Conflicts {
			if secret(c.Key) || certs.HoldsKey(c.Value+c.Rejected) {
				c.Value, c.Rejected = hidden, hidden
			}
			o.Conflicts = append(o.Conflicts, Conflict{svc.Name, c})
		}
	}
	return o
}

// unmet hides the values of keys that look like secrets.
func unmet(wishes []render.Unmet) []render.Unmet {
	shown := append([]render.Unmet{}, wishes...)
	for i := range shown {
		if secret(shown[i].Key) {
			shown[i].Value = hidden
		}
	}
	return shown
}

// snapshot is never nil.
func (m *moment) snapshot() *catalog.Snapshot {
	if m.reconciler.Snapshot != nil {
		return m.reconciler.Snapshot
	}
	return &catalog.Snapshot{}
}
