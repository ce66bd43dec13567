package reconcile

import (
	"context"
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

const (
	// lookFirst and lookMax bound the pause between two looks at a port that was taken. A look costs a few system
	// calls; the growing pause is for a port that comes and goes, each time with a reload.
	lookFirst = 2 * time.Second
	lookMax   = time.Minute
	// calm is how long a port must have been free for its pause to be short again.
	calm = 10 * time.Minute
)

// busyPort is a port that records ask for and that something other than HAProxy has.
type busyPort struct {
	taken   []reload.Taken
	blocked bool // false: it was taken lately
	next    time.Time
	pause   time.Duration
	freed   time.Time
}

// busy keeps the records that ask for a taken port away from HAProxy, which could not load anything with them: whoever
// may write one record could otherwise stop the changes of all services.
type busy map[int]*busyPort

// note takes the addresses that an apply could not have. It tells whether records ask for any of them that were
// not kept away before; otherwise the addresses are the templates' own, and that is for the operator to see.
func (b busy) note(now time.Time, taken []reload.Taken, snap *catalog.Snapshot) bool {
	asked := asked(snap)
	found := map[int][]reload.Taken{}
	for _, t := range taken {
		if port := int(t.Addr.Port()); asked[port] && !b.blocks(port) {
			found[port] = append(found[port], t)
		}
	}
	for port, taken := range found {
		p := b[port]
		if p == nil || now.Sub(p.freed) > calm {
			p = &busyPort{pause: lookFirst}
			b[port] = p
		} else {
			p.pause = min(2*p.pause, lookMax)
		}
		p.taken, p.blocked, p.next = taken, true, now.Add(p.pause)
	}
	return len(found) > 0
}

// asked are the ports that records ask for.
func asked(snap *catalog.Snapshot) map[int]bool {
	ports := map[int]bool{}
	for _, svc := range snap.Services {
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

func (b busy) blocks(port int) bool { p := b[port]; return p != nil && p.blocked }

// look tries the ports that are due, and those that no record asks for any more. It returns the ports that may be
// asked for again.
func (b busy) look(now time.Time, snap *catalog.Snapshot) (free []int) {
	asked := asked(snap)
	for port, p := range b {
		if !p.blocked || now.Before(p.next) {
			continue
		}
		if asked[port] && slices.ContainsFunc(p.taken, func(t reload.Taken) bool { return t.Still() }) {
			p.next = now.Add(p.pause)
			continue
		}
		p.blocked, p.freed = false, now
		free = append(free, port)
	}
	slices.Sort(free)
	return free
}

// release is for somebody who has changed something: everything is tried again.
func (b busy) release() { clear(b) }

// deadline is when the next look is due; zero if none is.
func (b busy) deadline() (next time.Time) {
	for _, p := range b {
		if p.blocked && (next.IsZero() || p.next.Before(next)) {
			next = p.next
		}
	}
	return next
}

// filter is what can be asked of HAProxy.
func (b busy) filter(snap *catalog.Snapshot) *catalog.Snapshot {
	if b.deadline().IsZero() {
		return snap
	}
	return snap.Without(func(inst *catalog.Instance) string {
		port := portOf(inst)
		if !b.blocks(port) {
			return ""
		}
		t := b[port].taken[0]
		return fmt.Sprintf("%s %d cannot be had: bind %s: %s; it is tried again and again", portKey, port, t.Addr, t.Reason)
	})
}

// collided looks for records that are to blame for a failed apply. It tells whether there are any: then they are
// out of the snapshot that is wanted.
func (f *Follower) collided(a reload.Result) bool {
	if len(a.Taken) == 0 || !f.busy.note(time.Now(), a.Taken, f.whole) {
		return false
	}
	f.narrow()
	return true
}

// narrow makes the snapshot that is wanted anew, and says which records it has not.
func (f *Follower) narrow() {
	f.snap = f.busy.filter(f.whole)
	f.looking = nil
	if next := f.busy.deadline(); !next.IsZero() {
		f.looking = time.After(time.Until(next))
	}
	now := map[string]bool{}
	if f.snap != f.whole {
		f.tellBlocked(now)
	}
	for _, key := range slices.Sorted(maps.Keys(f.blocked)) {
		if !now[key] {
			f.opts.Logger.Info("record is no longer left out for its port", "key", key)
		}
	}
	f.blocked = now
	f.metrics.blocked.Set(float64(len(now)))
	f.update(func(s *Status) bool { s.Snapshot = f.snap; return true })
}

func (f *Follower) tellBlocked(now map[string]bool) {
	const most = 20 // lines of one kind; the page has them all
	known := make(map[string]bool, len(f.whole.Quarantined))
	for _, q := range f.whole.Quarantined {
		known[q.Key] = true
	}
	said := 0
	for _, q := range f.snap.Quarantined {
		if known[q.Key] {
			continue
		}
		now[q.Key] = true
		if said++; !f.blocked[q.Key] && said <= most {
			f.opts.Logger.Warn("record left out, so that the others can be followed", "key", q.Key, "reason", q.Reason)
		}
	}
}

// lookAgain goes back to what the records ask for where that has become possible.
func (f *Follower) lookAgain(ctx context.Context) {
	free := f.busy.look(time.Now(), f.whole)
	f.narrow()
	if len(free) > 0 {
		f.pass(ctx, !f.failing)
	}
}
