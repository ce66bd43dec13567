package register

// saidAddress is the key of the last logged address to advertise among the logged reasons.
const saidAddress = "advertise"

// explain logs each reason once, and forgets it with its container.
func (f *follower) explain(containers []*Container, d Desired) {
	if now := describe(f.address.Advertise); f.address.IP.IsValid() && f.said[saidAddress] != now {
		f.said[saidAddress] = now
		f.log.Info("published ports are reached at", "address", now)
	}
	f.opts.Metrics.containers.Set(float64(len(containers)))
	f.opts.Metrics.skipped.Set(float64(len(d.Skipped)))
	kept := map[string]bool{}
	for id := range f.entries {
		kept[id[:min(len(id), 12)]] = true
	}
	for key := range f.said {
		if key != saidAddress && !kept[key[:min(len(key), 12)]] {
			delete(f.said, key)
		}
	}
	text := map[string]string{}
	for _, s := range d.Skipped {
		text[s.ContainerID] += s.Reason + "; "
	}
	for _, s := range d.Skipped {
		f.say(s.ContainerID, "skipped", text[s.ContainerID], s)
	}
	for _, w := range d.Warnings {
		f.sayOnce(w)
	}
	for _, c := range containers {
		if _, skipped := text[c.ShortID()]; !skipped {
			delete(f.said, c.ShortID()+" skipped")
		}
	}
}

func (f *follower) say(id, topic, text string, s Skipped) {
	key := id[:min(len(id), 12)] + " " + topic
	if f.said[key] == text {
		return
	}
	f.said[key] = text
	f.log.Info("container skipped", "container", s.Container, "container_id", s.ContainerID, "reason", text)
}

func (f *follower) sayOnce(w Skipped) {
	key := w.ContainerID + " " + w.Reason
	if _, said := f.said[key]; said {
		return
	}
	f.said[key] = w.Reason
	f.log.Warn("container has a setting without effect", "container", w.Container, "container_id", w.ContainerID, "reason", w.Reason)
}

func (f *follower) name(id string) string {
	if e := f.entries[id]; e != nil && e.facts != nil {
		return e.facts.Name
	}
	return id[:min(len(id), 12)]
}

// actionLabel keeps the metric's label bounded: "health_status: healthy" is one of few, and free text is none.
func actionLabel(action string) string {
	if len(action) >= len("health_status") && action[:len("health_status")] == "health_status" {
		return "health_status"
	}
	return action
}
