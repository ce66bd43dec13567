package register

import "strings"

// logged is what the log has last said about a container.
type logged struct {
	skipped, inspectError string
	warnings              map[string]bool
}

// logReasons logs each reason once, for as long as the container lives and the reason does not change.
func (d *Docker) logReasons(containers []*Container, desired Desired) {
	d.opts.Metrics.containers.Set(float64(len(containers)))
	d.opts.Metrics.skipped.Set(float64(len(desired.Skipped)))
	skipped, warnings := map[string][]string{}, map[string][]string{}
	for _, s := range desired.Skipped {
		skipped[s.ContainerID] = append(skipped[s.ContainerID], s.Reason)
	}
	for _, w := range desired.Warnings {
		warnings[w.ContainerID] = append(warnings[w.ContainerID], w.Reason)
	}
	for _, c := range containers {
		was := &d.entries[c.ID].logged
		reason := strings.Join(skipped[c.ShortID()], "; ")
		if reason != "" && reason != was.skipped {
			d.opts.Log.Info("container skipped", "container", c.Name, "container_id", c.ShortID(), "reason", reason)
		}
		was.skipped = reason
		now := map[string]bool{}
		for _, w := range warnings[c.ShortID()] {
			if now[w] = true; !was.warnings[w] {
				d.opts.Log.Warn("container has a setting without effect", "container", c.Name, "container_id", c.ShortID(), "reason", w)
			}
		}
		was.warnings = now
	}
}
