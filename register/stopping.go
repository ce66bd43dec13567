package register

import (
	"slices"
	"time"

	"nuncio/internal/catalog"
)

// inheritance is what this registrar learns from the records of the one before it: which containers had got a stop signal.
// Docker replays only its last 256 events to a new registrar, and health checks make such events too, so on a busy host the
// signal itself may not be among them.
type inheritance struct {
	known    map[Origin]bool      // runs of containers that have been looked at
	stopping map[Origin]time.Time // those that had got a signal, and until when it may still end them
}

// run is what of an Origin identifies one run of a container.
func (o Origin) run() Origin { return Origin{ContainerID: o.ContainerID, StartedAt: o.StartedAt} }

// withInheritance returns the desired set with the runs in drain that the registrar before had put there.
func (s *syncer) withInheritance(now time.Time) Desired {
	d := *s.desired
	d.Records = slices.Clone(d.Records)
	i, known := &s.inheritance, map[Origin]bool{}
	for run := range i.known { // those that are not decided on now may come back
		_, noAddress := d.NoAddress[run.ContainerID]
		known[run] = noAddress || d.Unknown[run.ContainerID]
	}
	for n, rec := range d.Records {
		run := rec.Origin.run()
		if run.ContainerID == "" {
			continue
		}
		if !i.known[run] && s.wasStopping(rec) {
			i.add(run, now.Add(s.opts.StopWindow))
			s.log.Info("container stays in drain, as the registrar before this one left it",
				"container", rec.Origin.Container, "container_id", shortID(run.ContainerID), "at_most", s.opts.StopWindow)
		}
		known[run] = true
		until, stopping := i.stopping[run]
		switch {
		case !stopping || rec.Instance.State != catalog.StateReady:
		case !now.Before(until): // it outlives the signal
			delete(i.stopping, run)
		default:
			d.Records[n].Instance.State, d.Records[n].Note = catalog.StateDrain, "it was being stopped when this registrar started"
		}
	}
	for run, stays := range known {
		if !stays {
			delete(known, run)
			delete(i.stopping, run)
		}
	}
	i.known = known
	return d
}

func (i *inheritance) add(run Origin, until time.Time) {
	if i.stopping == nil {
		i.stopping = map[Origin]time.Time{}
	}
	i.stopping[run] = until
}

// wasStopping reports whether the own record of the same run is in drain although neither an operator nor a setting of the
// container asks for that. Settings cannot change while a container runs.
func (s *syncer) wasStopping(rec Record) bool {
	key, err := s.id.key(rec)
	if err != nil || rec.Instance.State != catalog.StateReady {
		return false
	}
	have := s.keyspace.keys[key].owner
	return s.id.owns(key, have) && have.State == string(catalog.StateDrain) && have.Operator == "" && have.run() == rec.Origin.run()
}

// outlived returns a channel that fires when the first of those runs has outlived its signal.
func (i *inheritance) outlived() <-chan time.Time {
	var next time.Time
	for _, until := range i.stopping {
		if next.IsZero() || until.Before(next) {
			next = until
		}
	}
	if next.IsZero() {
		return nil
	}
	return time.After(time.Until(next))
}
