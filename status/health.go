package status

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/render"
	"nuncio/watch"
)

// moment is what each part says about itself when one document is made. Each is asked once, so that no document joins
// the state of one moment with the digests of another.
type moment struct {
	time       time.Time
	applier    reload.Status
	reconciler reconcile.Status
	store      watch.StoreStatus
	desired    haproxy.Files
	known      bool              // something is desired
	problems   map[string]string // see SetProblem
}

func (s *Server) moment() *moment {
	m := &moment{
		time: time.Now().UTC(), applier: s.opts.Applier.Status(), reconciler: s.opts.Reconciler.Status(), store: s.opts.Store.Status(),
	}
	m.desired, m.known = s.opts.Reconciler.Desired()
	s.mu.Lock()
	defer s.mu.Unlock()
	m.problems = maps.Clone(s.problems)
	return m
}

// desiredFiles returns what would run now if nothing held it back.
func (m *moment) desiredFiles() (haproxy.Files, error) {
	if !m.known {
		return haproxy.Files{}, errors.New("nothing is desired yet: etcd or the templates have not been read")
	}
	return m.desired, nil
}

func (m *moment) desiredDigest() string {
	if m.known {
		return m.desired.Digest()
	}
	return m.applier.DesiredDigest
}

// trustWarning is about --trust-values.
const trustWarning = "values from etcd are printed as they are (--trust-values), so whoever writes to etcd writes HAProxy's configuration; nuncio check --untrusted lists what to change"

// stateHolding: HAProxy runs what is desired, with instances that the shrink guard holds.
const stateHolding reload.State = "holding"

// Health is the answer of /healthz and /readyz.
type Health struct {
	// State is the name of the state that nuncio is in, such as "running" or "degraded".
	State reload.State
	// Ready is true while HAProxy runs a configuration made from the store that it has confirmed.
	Ready bool
	// Reasons says, in sentence fragments for people, why Ready is false or State is not "running".
	Reasons []string
	// Notes has what needs attention though it makes nothing less ready.
	Notes []string
}

// Health says how nuncio is doing now.
func (s *Server) Health() Health {
	m := s.moment()
	h := Health{State: m.state(), Ready: m.applier.Ready, Reasons: m.reasons()}
	if wishes := m.reconciler.Unmet; len(wishes) > 0 {
		h.Notes = append(h.Notes, fmt.Sprintf("wishes of services that are not met: %d, the first: %s", len(wishes), unmet(wishes)[0]))
	}
	if m.store.NearLimit != "" {
		h.Notes = append(h.Notes, "etcd: near a limit: "+m.store.NearLimit)
	}
	return h
}

// state is the applier's, except where HAProxy runs something other than what the newest templates make of the records.
func (m *moment) state() reload.State {
	switch {
	case m.applier.State != reload.Running:
		return m.applier.State
	case m.reconciler.Frozen != nil:
		return reload.State(reconcile.StateFrozen)
	case m.reconciler.RenderError != "", m.reconciler.ApplyError != "":
		return reload.Degraded
	case m.reconciler.RolledBack != nil:
		return reload.State(reconcile.StateRolledBack)
	case m.reconciler.TemplatesError != "", len(m.problems) > 0, len(m.reconciler.Refused()) > 0:
		return reload.Degraded
	case m.reconciler.Hold != nil, m.reconciler.KeyHold != nil:
		return stateHolding
	default:
		return reload.Running
	}
}

func (m *moment) reasons() (reasons []string) {
	add := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	since := func(t time.Time) time.Duration { return m.time.Sub(t).Round(time.Second) }
	etcd := m.store.Err
	if m.store.Hint != "" {
		etcd += " (" + m.store.Hint + ")"
	}
	switch {
	case !m.store.Synced:
		add("etcd: no answer yet: %s", cmp.Or(etcd, "still connecting"))
	case etcd != "":
		add("etcd: last answer %s ago: %s", since(m.store.LastSync), etcd)
	}
	if h := m.reconciler.Hold; h != nil {
		add("holding: %d instances of %d services vanished from etcd at once, %d remain; kept for %s more, unless enough come back or an operator accepts the loss (nuncio accept, or signal USR2)",
			h.Instances, len(h.Services), h.Remaining, -since(h.Until))
	}
	if h := m.reconciler.KeyHold; h != nil {
		add("holding: %d keys below %s vanished from etcd at once; kept for %s more, unless enough come back or an operator accepts the loss (nuncio accept, or signal USR2)",
			h.Keys, strings.Join(h.Prefixes, " "), -since(h.Until))
	}
	if back := m.reconciler.RolledBack; back != nil {
		add("rolled back: an operator went back to template set %d %s ago; records are followed, edits of the templates are not used until nuncio resume",
			back.TemplateSet, since(back.Since))
	}
	if frozen := m.reconciler.Frozen; frozen != nil {
		add("frozen: an operator froze generation %d %s ago; nothing is followed until nuncio resume", frozen.Generation, since(frozen.Since))
	}
	if text := m.reconciler.TemplatesError; text != "" {
		add("templates: %s", text)
	}
	if text := m.reconciler.RenderError; text != "" {
		add("rendering: %s", text)
	}
	if text := m.trust(); text != "" {
		add("trust: %s", text)
	}
	if dropped := m.reconciler.Dropped; len(dropped) > 0 {
		add("dropped: %d lines of the configuration, because a value cannot stand in them; the first: %s", len(dropped), dropped[0])
		if emptied := render.Emptied(dropped); len(emptied) > 0 {
			add("dropped: no server is left in %s", strings.Join(emptied, ", "))
		}
	}
	if text := cmp.Or(m.applier.LastError, m.reconciler.ApplyError); text != "" {
		add("haproxy: %s", text)
	}
	const most = 5 // there can be a thousand
	refused := m.reconciler.Refused()
	for i, c := range refused {
		if i == most {
			add("certificates: %d more are not as they should be (nuncio certs)", len(refused)-most)
			break
		}
		add("%s", c.Trouble())
	}
	for _, part := range slices.Sorted(maps.Keys(m.problems)) {
		add("%s: %s", part, m.problems[part])
	}
	return reasons
}

func (m *moment) trust() string {
	if m.reconciler.TrustValues {
		return trustWarning
	}
	return ""
}

// inStep reports that HAProxy has confirmed the files made from the newest records and the newest templates. Held instances
// are a difference from etcd too.
func (m *moment) inStep() bool {
	r := &m.reconciler
	return m.applier.Ready && m.store.Synced && m.store.Err == "" && r.RolledBack == nil && r.Frozen == nil &&
		r.Hold == nil && r.KeyHold == nil && r.TemplatesError == "" && r.RenderError == "" && m.applier.AppliedDigest == m.desiredDigest()
}
