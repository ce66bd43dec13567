package reconcile

import (
	"context"
	"errors"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/render"
)

// renderError says why a snapshot could not be rendered.
type renderError struct{ err error }

func (e *renderError) Error() string { return e.err.Error() }
func (e *renderError) Unwrap() error { return e.err }

// pass does what is due, and nothing else: all that it meets is planned for a later time or waits for an event.
func (r *Reconciler) pass(ctx context.Context) {
	now := time.Now()
	if what := r.keys.due(now); what != guardNone {
		r.takeKeys(what, r.guarded.Watched)
		r.take(guardNone)
	}
	if what := r.guard.due(now); what != guardNone {
		r.take(what)
	}
	r.freePorts(now)
	changed := r.changed
	r.changed = false
	switch {
	case r.state == StateFrozen:
		r.keepFrozen(ctx)
	case r.snapshot == nil:
		return
	case r.state == StateRolledBack:
		r.serve(ctx, r.current, changed)
	case r.edited: // before that the last good templates of the previous run would be applied, and then replaced
		r.follow(ctx, changed)
	}
	r.publishDesired(changed)
}

// serving is the template set that follows the records while the candidate does not; nil if there is none.
func (r *Reconciler) serving() *templateSet {
	if r.current != nil {
		return r.current
	}
	return r.earlier
}

// follow brings HAProxy to what the newest templates that work make of the newest snapshot. A candidate that is known to
// fail must not delay a change of services: what serves is brought up to date first.
func (r *Reconciler) follow(ctx context.Context, changed bool) {
	serving, now := r.serving(), time.Now()
	if c := r.candidate; c != nil {
		known := changed && c.attempted && r.current != nil
		switch {
		case known:
			c.retry.servicesChanged(now)
		case changed:
			c.retry.due = now
		}
		r.paced(&c.retry)
		switch {
		case known || !isDue(c.retry.due, now):
		case r.current != nil && now.Before(c.retry.noReload): // part of it would be undone until the rest follows
			c.retry.due = c.retry.noReload
		case r.try(ctx, c):
			return
		default:
			changed = true
		}
	}
	if serving != nil {
		r.serve(ctx, serving, changed)
	}
}

// try makes one attempt with the candidate and reports whether it is in use now.
func (r *Reconciler) try(ctx context.Context, candidate *templateSet) bool {
	candidate.attempted = true
	err := r.attempt(ctx, candidate, r.current != nil)
	switch {
	case err == nil:
		r.use(candidate)
		return true
	case ctx.Err() != nil, errors.Is(err, reload.ErrReloadNeeded):
		return false
	}
	r.templatesFailed(err)
	if r.serving() == nil {
		r.on(eventFailed)
	}
	return false
}

// serve makes one attempt with a set that serves the records, if there is something new or one is due.
func (r *Reconciler) serve(ctx context.Context, set *templateSet, changed bool) {
	if !changed && !isDue(set.retry.due, time.Now()) {
		return
	}
	r.paced(&set.retry)
	err := r.attempt(ctx, set, false)
	var unrendered *renderError
	switch {
	case err == nil:
		if set == r.earlier {
			r.opts.Logger.Info("templates before the newest in use")
		}
		if set != r.current {
			r.current, r.earlier = set, nil
		}
		r.applyFailed(nil)
		if r.newestWorks() {
			r.on(eventApplied)
		} else {
			r.on(eventNewestFailed)
		}
		return
	case ctx.Err() != nil, errors.Is(err, errNotDue), errors.Is(err, reload.ErrReloadNeeded):
		return
	case errors.As(err, &unrendered):
		r.renderFailed(err)
	default:
		r.applyFailed(err)
	}
	r.on(eventFailed)
}

func (r *Reconciler) newestWorks() bool { return r.candidate == nil && !r.unparsed }

// use makes the candidate the set in use.
func (r *Reconciler) use(candidate *templateSet) {
	if r.current != nil && r.current.number != candidate.number {
		r.leaveTemplateSet()
	}
	r.current, r.candidate, r.earlier = candidate, nil, nil
	r.applyFailed(nil)
	if r.unparsed { // after a rollback from templates that worked before the newest
		r.on(eventNewestFailed)
		return
	}
	r.templatesInUse()
	r.on(eventApplied)
}

// errNotDue is for files that have just failed, while the pause before the next attempt is not over.
var errNotDue = errors.New("these files have failed, and the next attempt is not due yet")

// attempt renders the newest snapshot with a template set and has it applied. Records that ask for a port in use are
// quarantined, certificates that HAProxy does not take give way to their last good content, and the attempt goes on without
// them.
func (r *Reconciler) attempt(ctx context.Context, set *templateSet, trial bool) error {
	for {
		began := time.Now()
		rendered, err := r.render(set)
		if err != nil {
			err = &renderError{err}
			set.retry.ended(began, reload.Result{}, err, trial)
			return err
		}
		if set.failed && began.Before(set.retry.due) && set.files.Equal(rendered.Files) {
			return errNotDue
		}
		set.files, set.tried = &rendered.Files, true
		result, err := r.apply(ctx, set, began)
		if err != nil && ctx.Err() != nil {
			return err // stopping: nothing has been learnt about these files
		}
		if r.conflict(err) || r.refuseCertificates(err) {
			continue
		}
		set.failed = err != nil
		r.certificatesTried(set, rendered.Files, err)
		set.retry.ended(began, result, err, trial)
		switch {
		case err == nil:
			r.confirmed = &confirmed{rendered.Files, result}
			r.linesDropped(rendered.Dropped)
			r.askedOutside(rendered.Outside)
			r.wishesUnmet(rendered.Unmet)
			r.ran(set)
		case result.Outcome == reload.Runtime: // a part
			r.confirmed = &confirmed{result.Files, result}
		}
		return err
	}
}

func (r *Reconciler) apply(ctx context.Context, set *templateSet, began time.Time) (reload.Result, error) {
	result, err := r.opts.Applier.Apply(ctx, reload.Desired{
		Files: *set.files, Revision: r.snapshot.Revision, TemplateSet: r.sets.numberOf(set), NoReload: began.Before(set.retry.noReload),
	})
	r.pace.note(began, result, err)
	return result, err
}

// running returns what HAProxy runs, as far as that is known: at a start, what ran before.
func (r *Reconciler) running() haproxy.Files {
	if r.confirmed != nil {
		return r.confirmed.files
	}
	return r.before
}

// render makes the complete files for the newest snapshot.
func (r *Reconciler) render(set *templateSet) (*render.Result, error) {
	result, err := r.renderAlone(set)
	if err == nil {
		result.Files = r.complete(result.Files)
	}
	return result, err
}

// renderAlone makes the files without the certificates that are outside of them.
func (r *Reconciler) renderAlone(set *templateSet) (*render.Result, error) {
	began := time.Now()
	result, err := set.templates.RenderAfter(r.snapshot, r.running())
	r.metrics.duration.Observe(time.Since(began).Seconds())
	if err != nil {
		r.metrics.errors.Inc()
	}
	return result, err
}

// publishDesired keeps the answer of Desired. While an operator's order holds changes back, the newest templates are rendered
// for it alone, which also shows whether they can be.
func (r *Reconciler) publishDesired(changed bool) {
	set := r.serving()
	switch {
	case r.snapshot == nil:
		return
	case r.state == StateRolledBack || r.state == StateFrozen:
		if r.candidate != nil {
			set = r.candidate
		}
		if changed && set != nil {
			r.renderHeldBack(set)
		}
	case set == nil:
		set = r.candidate
	}
	if set == nil || set.files == nil || r.desired != nil && r.desired.Equal(*set.files) {
		return
	}
	r.update(func(*Status) { r.desired = set.files })
}

func (r *Reconciler) renderHeldBack(set *templateSet) {
	rendered, err := r.renderAlone(set)
	switch {
	case err == nil:
		files := r.certificates.keeper.Look(rendered.Files, r.certificates.good).Files
		set.files = &files
		if !r.unparsed {
			r.setTemplatesError("")
		}
	case set == r.candidate:
		r.templatesFailed(err)
	default:
		r.renderFailed(err)
	}
}
