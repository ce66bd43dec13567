package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/render"
)

// Status is a copy of what a Reconciler knows about itself.
type Status struct {
	State State     `json:"state"`
	Since time.Time `json:"since"` // when State began

	// TemplatesError says why the newest templates are not in use; empty when they are, or may be after Resume.
	TemplatesError string `json:"templates_error,omitempty"`
	// RenderError says why the templates in use could not render the newest snapshot; empty when they could.
	RenderError string `json:"render_error,omitempty"`
	// ApplyError says why what should serve was not applied; empty when it was. Retry is when it is attempted again.
	ApplyError string    `json:"apply_error,omitempty"`
	Retry      time.Time `json:"retry,omitzero"`
	// Dropped lists the lines left out of the rendered files because of a value that fits nowhere.
	Dropped []render.Dropped `json:"dropped,omitempty"`
	// Unmet lists the wishes of services that the templates in use do not fulfil.
	Unmet []render.Unmet `json:"unmet,omitempty"`
	// TrustValues: values from the store are printed as they are.
	TrustValues bool `json:"trust_values,omitempty"`
	// TemplateSet is the number of the set that serves; 0 until one is known.
	TemplateSet int64 `json:"template_set,omitempty"`

	// Hold is set while the shrink guard keeps instances that the store no longer has.
	Hold *Hold `json:"hold,omitempty"`
	// KeyHold is set while it keeps keys that are no records.
	KeyHold *KeyHold `json:"key_hold,omitempty"`
	// RolledBack and Frozen are the operator's order in force, at most one.
	RolledBack *RolledBack `json:"rolled_back,omitempty"`
	Frozen     *Frozen     `json:"frozen,omitempty"`
	// Certificates are those of the last attempt, sorted by name.
	Certificates []Certificate `json:"-"`
	// Snapshot is what is rendered: the store's, with what the shrink guard keeps and without the records whose port is in
	// use, which are quarantined in it. It is nil before the first.
	Snapshot *catalog.Snapshot `json:"-"`
}

// Status returns a copy that is safe to keep.
func (r *Reconciler) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Dropped, s.Unmet, s.Certificates = slices.Clone(s.Dropped), slices.Clone(s.Unmet), slices.Clone(s.Certificates)
	return s
}

// Changed returns a channel that is closed at the next change of Status. Take it before reading Status.
func (r *Reconciler) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.notify
}

// Desired returns the files that would run now if nothing held them back: not an order of the operator, not a pause
// after a failure. It reports whether any are known.
func (r *Reconciler) Desired() (haproxy.Files, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.desired == nil {
		return haproxy.Files{}, false
	}
	return *r.desired, true
}

func (r *Reconciler) update(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
	close(r.notify)
	r.notify = make(chan struct{})
}

// templatesFailed publishes and, the first time, logs why the newest templates are not in use.
func (r *Reconciler) templatesFailed(err error) {
	if !r.setTemplatesError(err.Error()) {
		return
	}
	meanwhile := "no earlier templates to fall back to"
	switch {
	case r.state == StateRolledBack || r.state == StateFrozen:
		meanwhile = "the operator's order stays in force"
	case r.current != nil:
		meanwhile = "the last good templates stay in use"
	case r.earlier != nil:
		meanwhile = "the templates before them are tried"
	}
	r.opts.Logger.Error("templates not in use", "err", err, "meanwhile", meanwhile)
}

// setTemplatesError reports whether the text differs from the one before.
func (r *Reconciler) setTemplatesError(text string) bool {
	r.metrics.templates.Set(1)
	if text != "" {
		r.metrics.templates.Set(0)
	}
	differs := r.status.TemplatesError != text
	if differs {
		r.update(func(s *Status) { s.TemplatesError = text })
	}
	return differs
}

func (r *Reconciler) templatesInUse() {
	r.setTemplatesError("")
	r.opts.Logger.Info("templates in use")
}

// renderFailed is for templates that worked before: it is the snapshot that they cannot render.
func (r *Reconciler) renderFailed(err error) {
	if r.status.RenderError != err.Error() {
		r.opts.Logger.Error("snapshot not rendered, the running configuration stays", "revision", r.snapshot.Revision, "err", err)
		r.update(func(s *Status) { s.RenderError = err.Error() })
	}
}

// applyFailed publishes and, the first time, logs why what should serve was not applied; nil says that it was.
func (r *Reconciler) applyFailed(err error) {
	text, retry := "", time.Time{}
	if planned := r.attempted(); err != nil && len(planned) > 0 {
		text, retry = err.Error(), planned[len(planned)-1].due
	}
	if text != "" {
		level := slog.LevelError
		if text == r.status.ApplyError {
			level = slog.LevelDebug
		}
		r.opts.Logger.Log(context.Background(), level, "apply failed, keeping the running configuration", "revision", r.revision(),
			"retry_in", time.Until(retry).Round(time.Millisecond), "err", err)
	}
	var number int64
	if serving := r.serving(); serving != nil {
		number = serving.number
	}
	if s := &r.status; s.ApplyError != text || s.Retry != retry || s.TemplateSet != number || text == "" && s.RenderError != "" {
		r.update(func(s *Status) {
			s.ApplyError, s.Retry, s.TemplateSet = text, retry, number
			if text == "" {
				s.RenderError = ""
			}
		})
	}
}

// revision is the store's revision of what serves.
func (r *Reconciler) revision() int64 {
	if r.frozen != nil {
		return r.frozen.Revision
	}
	return r.snapshot.Revision
}

// linesDropped publishes the lines that were dropped and logs each once, for as long as it is dropped.
func (r *Reconciler) linesDropped(lines []render.Dropped) {
	r.metrics.dropped.Set(float64(len(lines)))
	r.metrics.emptied.Set(float64(len(render.Emptied(lines))))
	if len(lines)+len(r.dropped) == 0 {
		return
	}
	r.update(func(s *Status) { s.Dropped = lines })
	now := make(map[string]bool, len(lines))
	for _, d := range lines {
		// Not the line number: it moves with every change above it.
		key := d.Template + " " + d.Value
		if !r.dropped[key] && !now[key] {
			r.opts.Logger.Warn("line dropped", "template", d.Template, "file", d.File, "value", d.Value, "reason", d.Reason, "emptied_backend", d.Emptied)
		}
		now[key] = true
	}
	r.dropped = now
}

// wishesUnmet publishes the wishes of services that are not fulfilled, and logs each once, for as long as it is not.
func (r *Reconciler) wishesUnmet(wishes []render.Unmet) {
	const most = 20 // lines at once; the status has all of them
	r.metrics.unmet.Set(float64(len(wishes)))
	if slices.Equal(wishes, r.status.Unmet) {
		return
	}
	before := r.status.Unmet
	r.update(func(s *Status) { s.Unmet = wishes })
	known := make(map[render.Unmet]bool, len(before))
	for _, u := range before {
		known[u] = true
	}
	logged := 0
	for _, u := range wishes {
		if !known[u] && logged < most {
			logged++
			r.opts.Logger.Warn("wish of a service not met", "service", u.Service, "key", u.Key, "value", u.Value, "reason", u.Reason)
		}
	}
}

// askedOutside logs each question of the templates that can have no answer, once for as long as it is asked.
func (r *Reconciler) askedOutside(notes []string) {
	for _, note := range notes {
		if !slices.Contains(r.outside, note) {
			r.opts.Logger.Warn("templates ask for keys that are not there to be had", "note", note)
		}
	}
	r.outside = notes
}

// take adopts what the shrink guard lets through now, and reports what the guard did.
func (r *Reconciler) take(what guardEvent) {
	r.guarded, r.changed = r.keys.desired(r.guard.desired()), true
	r.baseline.keep(r.guarded, r.guard.held)
	r.filterPorts()
	hold := r.guard.report()
	r.metrics.held.Set(0)
	if hold != nil {
		r.metrics.held.Set(float64(hold.Instances))
	}
	r.update(func(s *Status) { s.Hold = hold })
	switch what {
	case guardStarted:
		r.metrics.activations.Inc()
		r.opts.Logger.Warn("shrink guard holds instances: too many vanished from the store at once; health checks decide whether they get traffic",
			"revision", r.snapshot.Revision, "vanished", hold.Instances, "remaining", hold.Remaining, "services", len(hold.Services),
			"until", hold.Until, "accept", "nuncio accept, or signal USR2")
	case guardRecovered, guardExpired, guardAccepted:
		r.metrics.droppedInstances.Add(float64(r.guard.dropped))
		r.opts.Logger.Info("shrink guard holds nothing more, the store is followed as it is", "reason", string(what),
			"dropped", r.guard.dropped, "revision", r.snapshot.Revision)
	}
}
