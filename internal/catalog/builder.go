package catalog

import (
	"cmp"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"
)

// BuilderOptions configure a Builder; the zero value is usable.
type BuilderOptions struct {
	// Prefix is the key prefix of the records, DefaultPrefix when empty. Keys outside it go to Snapshot.Extra.
	Prefix string
	// NoRecords says that no key is a record, whatever Prefix is: all go to Snapshot.Extra.
	NoRecords bool
	// Watched are the ranges that the content comes from; they are passed on in each Snapshot.
	Watched Ranges
	// Select says which records count at all. The others are not kept, and no limit counts them.
	Select Selector
	// Limits bound what the Builder keeps; a zero in it means the value of DefaultLimits.
	Limits Limits
	// Refuse returns why a record that is valid by itself must be quarantined, or "". It must be deterministic. It may
	// be nil.
	Refuse func(*Instance) (reason string)
}

// Builder keeps the current content of the watched key ranges and makes snapshots of it. Snapshots share what did not
// change: a service whose records are the same keeps its pointer, and so does an instance with the same bytes, also
// after Replace. One goroutine at a time may use a Builder; any number may read its snapshots.
type Builder struct {
	o         BuilderOptions
	entries   map[string]*entry    // by key
	services  map[string]*group    // by name
	bytes     int                  // length of the keys and values in entries
	excluded  map[string]*excluded // keys beyond a limit, which are not in entries
	orders    int                  // how many have been
	forgotten bool                 // there are more, or long ones, which are not kept
	room      bool                 // something has left since the last listing
	cluster   uint64               // where the content comes from

	unselected map[uint64]struct{} // hashes of the keys that are not selected
	seed       maphash.Seed        // of these hashes

	// What has changed since the last snapshot.
	changedServices   map[string]bool
	changedQuarantine bool
	changedExtra      bool

	last *Snapshot
}

// entry is one key of the store.
type entry struct {
	key, raw string    // raw is cut short when the value is too long for a record
	size     int       // length of the whole value
	group    *group    // nil for a key that is not of the form service/instance
	inst     *Instance // nil when quarantined or outside the prefix
	err      error     // why the record is quarantined
}

// group collects the records of one service.
type group struct {
	name    string
	entries map[string]*entry // by key
	built   *Service          // nil while no record is valid
}

// NewBuilder returns an empty Builder.
func NewBuilder(o BuilderOptions) *Builder {
	o.Prefix = NormalizePrefix(cmp.Or(o.Prefix, DefaultPrefix))
	defaults := DefaultLimits()
	o.Limits.Keys, o.Limits.Bytes = cmp.Or(o.Limits.Keys, defaults.Keys), cmp.Or(o.Limits.Bytes, defaults.Bytes)
	return &Builder{
		o: o, entries: map[string]*entry{}, services: map[string]*group{}, excluded: map[string]*excluded{},
		unselected: map[uint64]struct{}{}, seed: maphash.MakeSeed(), changedServices: map[string]bool{}, last: &Snapshot{Watched: o.Watched},
	}
}

// Put sets a key. Equal bytes change nothing. A record that is invalid or beyond a limit is quarantined, and its former
// value is dropped.
func (b *Builder) Put(key string, value []byte) {
	e := b.entries[key]
	kept := b.kept(key, value)
	if e != nil && e.size == len(value) && e.raw == string(kept) {
		return
	}
	if !b.selects(key, value) {
		b.leaveOut(key, e)
		return
	}
	delete(b.unselected, maphash.String(b.seed, key))
	if reason := b.overLimit(key, e, len(kept)); reason != "" {
		b.exclude(key, reason, value)
		if e != nil {
			b.remove(e)
		}
		return
	}
	b.include(key)
	if e == nil {
		e = &entry{key: key}
		b.entries[key] = e
		b.bytes += len(key)
	}
	b.bytes += len(kept) - len(e.raw)
	wasQuarantined := e.err != nil
	e.raw, e.size, e.inst, e.err = string(kept), len(value), nil, nil
	if !b.isRecord(key) {
		b.changedExtra = true
		return
	}
	b.decode(e, value)
	b.changedQuarantine = b.changedQuarantine || wasQuarantined || e.err != nil
}

func (b *Builder) isRecord(key string) bool {
	return !b.o.NoRecords && strings.HasPrefix(key, b.o.Prefix)
}

// decode sets the entry's instance, or the reason why there is none.
func (b *Builder) decode(e *entry, value []byte) {
	service, instance, err := ParseKey(b.o.Prefix, e.key)
	if err != nil {
		e.err = err
		return
	}
	b.join(e, service)
	inst, err := Decode(instance, value)
	if err == nil && b.o.Refuse != nil {
		if reason := b.o.Refuse(inst); reason != "" {
			err = refusal(reason)
		}
	}
	if err != nil {
		e.err = err
		return
	}
	e.inst = inst
}

// refusal is a reason given by BuilderOptions.Refuse.
type refusal string

func (r refusal) Error() string { return string(r) }

// Delete removes a key, if it is there.
func (b *Builder) Delete(key string) {
	delete(b.unselected, maphash.String(b.seed, key))
	b.include(key)
	if e := b.entries[key]; e != nil {
		b.remove(e)
		b.room = true
		b.admit()
	}
}

// selects reports whether a key is selected. One that is no record always is, and one whose service is not known.
func (b *Builder) selects(key string, value []byte) bool {
	if len(b.o.Select.terms) == 0 || !b.isRecord(key) {
		return true
	}
	service, instance, err := ParseKey(b.o.Prefix, key)
	if err != nil {
		return true
	}
	inst, err := Decode(instance, value)
	if err != nil {
		inst = nil
	}
	return b.o.Select.Match(service, inst)
}

// leaveOut counts a key that is not selected.
func (b *Builder) leaveOut(key string, old *entry) {
	b.include(key)
	if old != nil {
		b.remove(old)
		b.room = true
		b.admit()
	}
	if len(b.unselected) < maxUnselected {
		b.unselected[maphash.String(b.seed, key)] = struct{}{}
	}
}

// Replace makes the given pairs the whole content, as a listing of the store does. It iterates twice: known keys are put
// first, then new ones in the given order, so that near a limit the older records stay.
func (b *Builder) Replace(pairs iter.Seq2[string, []byte]) {
	b.changedQuarantine = b.changedQuarantine || len(b.excluded) > 0
	clear(b.excluded)
	b.forgotten, b.room = false, false
	clear(b.unselected)
	listed := make(map[string]bool, len(b.entries))
	for key, value := range pairs {
		if b.entries[key] != nil {
			listed[key] = true
			b.Put(key, value)
		}
	}
	for key, e := range b.entries {
		if !listed[key] {
			b.remove(e)
		}
	}
	for key, value := range pairs {
		if b.entries[key] == nil {
			b.Put(key, value)
		}
	}
}

// From notes which etcd cluster the content comes from.
func (b *Builder) From(cluster uint64) { b.cluster = cluster }

// Snapshot returns the current content, complete up to the given revision. When anything changed it costs one step per
// service besides the changes.
func (b *Builder) Snapshot(revision int64) *Snapshot {
	next := *b.last
	next.Revision, next.Cluster = revision, b.cluster
	if len(b.changedServices) > 0 {
		next.Services = b.rebuild(b.last.Services)
		clear(b.changedServices)
	}
	if b.changedQuarantine {
		next.Quarantined, next.unserved = b.quarantined(), b.unserved()
		b.changedQuarantine = false
	}
	if b.changedExtra {
		next.Extra = b.extra()
		b.changedExtra = false
	}
	next.Unselected = len(b.unselected)
	if !b.last.Same(&next) || b.last.Unselected != next.Unselected || b.last.Revision != revision || b.last.Cluster != b.cluster {
		b.last = &next
	}
	return b.last
}

func (b *Builder) join(e *entry, service string) {
	g := b.services[service]
	if g == nil {
		g = &group{name: service, entries: map[string]*entry{}}
		b.services[service] = g
	}
	g.entries[e.key] = e
	e.group = g
	b.changedServices[service] = true
}

func (b *Builder) remove(e *entry) {
	delete(b.entries, e.key)
	b.bytes -= len(e.key) + len(e.raw)
	b.changedQuarantine = b.changedQuarantine || e.err != nil
	switch {
	case e.group != nil:
		delete(e.group.entries, e.key)
		b.changedServices[e.group.name] = true
	case e.err == nil:
		b.changedExtra = true
	}
}

// rebuild returns the new list of services, or old itself when nothing differs.
func (b *Builder) rebuild(old []*Service) []*Service {
	list := make([]*Service, 0, len(old)+len(b.changedServices))
	rest := old
	for _, name := range slices.Sorted(maps.Keys(b.changedServices)) {
		at, found := findService(rest, name)
		list = append(list, rest[:at]...)
		if found {
			at++
		}
		rest = rest[at:]
		g := b.services[name]
		if g.build(); g.built != nil {
			list = append(list, g.built)
		}
		if len(g.entries) == 0 {
			delete(b.services, name)
		}
	}
	list = append(list, rest...)
	if slices.Equal(list, old) {
		return old
	}
	return list
}

func findService(list []*Service, name string) (at int, found bool) {
	return slices.BinarySearchFunc(list, name, func(s *Service, name string) int { return cmp.Compare(s.Name, name) })
}

func (b *Builder) quarantined() []Quarantined {
	var list []Quarantined
	for _, e := range b.entries {
		if e.err != nil {
			list = append(list, quarantine(e.key, e.err, e.raw))
		}
	}
	for _, key := range b.inOrder()[:min(len(b.excluded), maxShown)] {
		reason := b.excluded[key].reason
		list = append(list, Quarantined{Key: key, Reason: reason, Detail: reason})
	}
	slices.SortFunc(list, func(x, y Quarantined) int { return cmp.Compare(x.Key, y.Key) })
	if slices.Equal(list, b.last.Quarantined) {
		return b.last.Quarantined
	}
	return list
}

func (b *Builder) extra() []Pair {
	return b.pairs(b.last.Extra, func(e *entry) bool { return e.group == nil && e.err == nil })
}

// unserved returns the pairs of the quarantined records, but of those that are longer than any record, since only their
// beginning is kept.
func (b *Builder) unserved() []Pair {
	return b.pairs(b.last.unserved, func(e *entry) bool { return e.err != nil && e.size == len(e.raw) })
}

// pairs returns the chosen pairs, sorted by key, or old itself when nothing differs.
func (b *Builder) pairs(old []Pair, choose func(*entry) bool) []Pair {
	var list []Pair
	for _, e := range b.entries {
		if choose(e) {
			list = append(list, Pair{e.key, e.raw})
		}
	}
	slices.SortFunc(list, func(x, y Pair) int { return cmp.Compare(x.Key, y.Key) })
	if slices.Equal(list, old) {
		return old
	}
	return list
}

// build makes the service from its entries, reusing every part of the old one that is the same.
func (g *group) build() {
	old := g.built
	next := &Service{Name: g.name}
	used := make(map[int]bool, len(g.entries))
	at := 0 // in old; both lists are in key order, and the keys of one service sort as its instances do
	for _, key := range slices.Sorted(maps.Keys(g.entries)) {
		e := g.entries[key]
		if e.inst == nil {
			continue
		}
		pair, inst := Pair{key, e.raw}, e.inst.withID(freeID(used, e.inst.ID))
		for old != nil && at < len(old.pairs) && old.pairs[at].Key < key {
			at++
		}
		if old != nil && at < len(old.pairs) && old.pairs[at] == pair && old.Instances[at].ID == inst.ID {
			inst = old.Instances[at]
		}
		next.Instances, next.pairs = append(next.Instances, inst), append(next.pairs, pair)
	}
	switch {
	case len(next.Instances) == 0:
		g.built = nil
	case old == nil || !slices.Equal(old.Instances, next.Instances):
		next.Meta, next.Conflicts = unite(next.Instances)
		g.built = next
	}
}
