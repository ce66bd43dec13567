package main

import (
	"fmt"
	"time"

	"nuncio/reload"
	"nuncio/status"
)

// report joins what the rooms say of themselves into one answer for health and readiness.
func (d *daemon) report() status.Report {
	applying, wanting, watching := d.manager.Status(), d.follower.Status(), d.store.Status()
	r := status.Report{State: string(applying.State), Ready: applying.Ready}
	add := func(format string, args ...any) { r.Reasons = append(r.Reasons, fmt.Sprintf(format, args...)) }

	if !watching.Synced {
		add("etcd: no answer yet: %s", withHint(orUnknown(watching.Err), watching.Hint))
	} else if watching.Err != "" {
		add("etcd: last heard %s ago: %s", time.Since(watching.LastSync).Round(time.Second), withHint(watching.Err, watching.Hint))
	}
	if h := wanting.Hold; h != nil {
		add("holding: %d instances of %d services vanished from etcd at once, %d remain; kept for %s more, unless enough come back or somebody accepts it (nuncio accept, or signal USR2)",
			h.Instances, len(h.Services), h.Remaining, time.Until(h.Until).Round(time.Second))
	}
	if pin := d.gate.Pinned(); pin != nil {
		add("pinned: an operator rolled back to generation %d %s ago; changes are not applied until nuncio resume", pin.Generation, time.Since(pin.Since).Round(time.Second))
	}
	if wanting.TemplatesError != "" {
		add("templates: %s", wanting.TemplatesError)
	}
	if wanting.RenderError != "" {
		add("rendering: %s", wanting.RenderError)
	}
	if applying.LastError != "" {
		add("haproxy: %s", applying.LastError)
	}
	// The manager is content as soon as the last good files run; for an operator whose new templates or newest
	// snapshot are not in them, that is not "running".
	if applying.State == reload.Running && (wanting.TemplatesError != "" || wanting.RenderError != "") {
		r.State = string(reload.Degraded)
	}
	if r.State == string(reload.Running) && wanting.Hold != nil {
		r.State = stateHolding
	}
	if d.gate.Pinned() != nil && (r.State == string(reload.Running) || r.State == stateHolding) {
		r.State = statePinned
	}
	return r
}

// stateHolding: what HAProxy runs is right but for the instances that the shrink guard keeps.
const stateHolding = "holding"

func withHint(reason, hint string) string {
	if hint == "" {
		return reason
	}
	return reason + " (" + hint + ")"
}

func orUnknown(reason string) string {
	if reason == "" {
		return "still connecting"
	}
	return reason
}
