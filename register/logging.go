package register

import "strings"

// logReasons logs each reason once, and forgets it with its container.
func (d *dockerSource) logReasons(containers []*Container, desired Desired) {
	d.opts.Metrics.containers.Set(float64(len(containers)))
	d.opts.Metrics.skipped.Set(float64(len(desired.Skipped)))
	known := map[string]bool{}
	for id := range d.entries {
		known[shortID(id)] = true
	}
	for key := range d.loggedReasons {
		if !known[shortID(key)] {
			delete(d.loggedReasons, key)
		}
	}
	reasons := map[string][]string{}
	for _, s := range desired.Skipped {
		reasons[s.ContainerID] = append(reasons[s.ContainerID], s.Reason)
	}
	for _, s := range desired.Skipped {
		s.Reason = strings.Join(reasons[s.ContainerID], "; ")
		d.logSkipped("skipped", s)
	}
	for _, c := range containers {
		if len(reasons[c.ShortID()]) == 0 {
			delete(d.loggedReasons, c.ShortID()+" skipped")
		}
	}
	for _, w := range desired.Warnings {
		key := w.ContainerID + " " + w.Reason
		if _, logged := d.loggedReasons[key]; !logged {
			d.loggedReasons[key] = w.Reason
			d.log.Warn("container has a setting without effect", "container", w.Container, "container_id", w.ContainerID, "reason", w.Reason)
		}
	}
}

// logSkipped logs why a container is skipped unless the last logged reason of the topic is the same.
func (d *dockerSource) logSkipped(topic string, s Skipped) {
	key := s.ContainerID + " " + topic
	if d.loggedReasons[key] == s.Reason {
		return
	}
	d.loggedReasons[key] = s.Reason
	d.log.Info("container skipped", "container", s.Container, "container_id", s.ContainerID, "reason", s.Reason)
}

// actionLabel keeps the metric's label bounded: Docker writes "health_status: healthy".
func actionLabel(action string) string {
	name, _, _ := strings.Cut(action, ":")
	return name
}
