package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"nuncio/internal/catalog"
	"nuncio/reload"
)

// portKey is the setting of a service that makes templates listen on a port of its own.
const portKey = "tcp.port"

// probePauses bound the pause between two probes of a port in use. A probe costs a few system calls; the growing pause is for
// a port that comes and goes, each time with a reload.
var probePauses = pauses{first: 2 * time.Second, growth: 2, most: time.Minute}

// portCalm is how long a port must have been free for its pause to be short again.
const portCalm = 10 * time.Minute

// portConflict is a port that records ask for and that something other than HAProxy uses.
type portConflict struct {
	addresses []reload.AddressInUse
	blocked   bool // false: it was in use lately
	next      time.Time
	pause     pause
	freed     time.Time
}

// portConflicts keeps the records that ask for a port in use away from HAProxy, which could not load anything with them:
// one record could otherwise stop the changes of all services.
type portConflicts map[int]*portConflict

// note takes the addresses that an apply found in use. It reports whether records ask for any of them that were not
// blocked before; otherwise the addresses are the templates' own, and the operator has to see that.
func (c portConflicts) note(now time.Time, addresses []reload.AddressInUse, snapshot *catalog.Snapshot) bool {
	requested := requestedPorts(snapshot)
	found := map[int][]reload.AddressInUse{}
	for _, a := range addresses {
		if port := int(a.Addr.Port()); requested[port] && !c.blocks(port) {
			found[port] = append(found[port], a)
		}
	}
	for port, addresses := range found {
		p := c[port]
		if p == nil || now.Sub(p.freed) > portCalm {
			p = &portConflict{}
			c[port] = p
		}
		p.addresses, p.blocked, p.next = addresses, true, now.Add(p.pause.next(probePauses))
	}
	return len(found) > 0
}

func requestedPorts(snapshot *catalog.Snapshot) map[int]bool {
	ports := map[int]bool{}
	for _, svc := range snapshot.Services {
		for _, inst := range svc.Instances {
			if port := portOf(inst); port > 0 {
				ports[port] = true
			}
		}
	}
	return ports
}

func portOf(inst *catalog.Instance) int {
	port, err := strconv.Atoi(inst.Meta[portKey])
	if err != nil {
		return 0
	}
	return port
}

func (c portConflicts) blocks(port int) bool { p := c[port]; return p != nil && p.blocked }

// free probes the ports that are due, and reports whether any may be asked for again: free ones, and those that no record asks
// for any more.
func (c portConflicts) free(now time.Time, snapshot *catalog.Snapshot) (freed bool) {
	requested := requestedPorts(snapshot)
	for port, p := range c {
		if !p.blocked || now.Before(p.next) {
			continue
		}
		if requested[port] && slices.ContainsFunc(p.addresses, reload.AddressInUse.StillInUse) {
			p.next = now.Add(time.Duration(p.pause))
			continue
		}
		p.blocked, p.freed, freed = false, now, true
	}
	return freed
}

// deadline is when the next probe is due; zero if none is.
func (c portConflicts) deadline() (next time.Time) {
	for _, p := range c {
		if p.blocked && (next.IsZero() || p.next.Before(next)) {
			next = p.next
		}
	}
	return next
}

// filter returns what can be asked of HAProxy: the records that ask for a port in use are quarantined.
func (c portConflicts) filter(snapshot *catalog.Snapshot) *catalog.Snapshot {
	if c.deadline().IsZero() {
		return snapshot
	}
	return snapshot.Without(func(inst *catalog.Instance) string {
		port := portOf(inst)
		if !c.blocks(port) {
			return ""
		}
		a := c[port].addresses[0]
		return fmt.Sprintf("%s %d is in use (bind %s: %s); it is tried again until it is free", portKey, port, a.Addr, a.Reason)
	})
}

// conflict quarantines the records that are to blame for a failed apply, and reports whether there are any.
func (r *Reconciler) conflict(err error) bool {
	var inUse *reload.BindError
	if !errors.As(err, &inUse) || !r.ports.note(time.Now(), inUse.Addresses, r.guarded) {
		return false
	}
	r.filterPorts()
	return true
}

// freePorts goes back to what the records ask for where that has become possible.
func (r *Reconciler) freePorts(now time.Time) {
	if isDue(r.ports.deadline(), now) && r.ports.free(now, r.guarded) {
		r.changed = true
		r.filterPorts()
	}
}

// filterPorts makes the snapshot that is rendered, and logs which records join or leave the quarantine.
func (r *Reconciler) filterPorts() {
	const most = 20 // lines at once; the status has all of them
	r.snapshot = r.ports.filter(r.guarded)
	now := map[string]bool{}
	if r.snapshot != r.guarded {
		known := make(map[string]bool, len(r.guarded.Quarantined))
		for _, q := range r.guarded.Quarantined {
			known[q.Key] = true
		}
		logged := 0
		for _, q := range r.snapshot.Quarantined {
			if known[q.Key] {
				continue
			}
			now[q.Key] = true
			if !r.quarantined[q.Key] && logged < most {
				logged++
				r.opts.Logger.Warn("record quarantined, its port is in use", "key", q.Key, "reason", q.Reason)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(r.quarantined)) {
		if !now[key] {
			r.opts.Logger.Info("record no longer quarantined for its port", "key", key)
		}
	}
	r.quarantined = now
	r.metrics.portConflicts.Set(float64(len(now)))
	r.update(func(s *Status) { s.Snapshot = r.snapshot })
}
