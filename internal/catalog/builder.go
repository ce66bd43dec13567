package catalog

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// Builder keeps the current content of the watched key ranges and makes snapshots of it. Snapshots share
// what did not change: a service no record of which changed keeps its pointer, an instance whose bytes did
// not change keeps its pointer, also across Reset or Replace with the same content. A Builder is for one
// goroutine; its snapshots are for all.
type Builder struct {
	prefix string
	round  uint64 // counts calls of Reset; an entry of an older round goes at the next Snapshot
	swept  uint64 // the round up to which stale entries are gone

	entries  map[string]*entry // by key
	services map[string]*group
	names    []string // of services, sorted
	dirty    map[string]bool
	badDirty bool
	extDirty bool

	limits Limits
	bytes  int               // of the keys and values in entries
	aside  map[string]string // keys for which there was no room, and why
	refuse func(*Instance) string

	last *Snapshot
}

// entry is one key of the store.
type entry struct {
	key, raw string
	round    uint64
	group    *group    // nil for a key that is no record's
	inst     *Instance // nil when quarantined or no record
	reason   string    // why it is quarantined
}

// group is a service in the making.
type group struct {
	name    string
	entries map[string]*entry // by key
	built   *Service          // nil while no record is valid
}

// NewBuilder makes an empty Builder for records under prefix. Keys outside it go to Snapshot.Extra.
func NewBuilder(prefix string) *Builder {
	return &Builder{
		prefix: NormalizePrefix(prefix), entries: map[string]*entry{}, services: map[string]*group{},
		dirty: map[string]bool{}, limits: DefaultLimits(), aside: map[string]string{}, last: &Snapshot{},
	}
}

// Put sets a key. Equal bytes change nothing. An invalid record is quarantined, and what the key held before
// is gone; so is a record for which there is no room.
func (b *Builder) Put(key string, value []byte) {
	e := b.entries[key]
	if e != nil && e.raw == string(value) {
		e.round = b.round
		return
	}
	raw := b.kept(key, value)
	if !b.admit(key, e, len(raw)) {
		if e != nil {
			b.remove(e)
		}
		return
	}
	if e == nil {
		e = &entry{key: key}
		b.entries[key] = e
	}
	wasBad := e.reason != ""
	e.raw, e.round, e.inst, e.reason = raw, b.round, nil, ""
	if !strings.HasPrefix(key, b.prefix) {
		b.extDirty = true
		return
	}
	if service, instance, err := ParseKey(b.prefix, key); err != nil {
		e.reason = err.Error()
	} else {
		b.join(e, service)
		if inst, err := Decode(instance, value); err != nil {
			e.reason = err.Error()
		} else if e.reason = b.unwanted(inst); e.reason == "" {
			e.inst = inst
		}
	}
	b.badDirty = b.badDirty || wasBad || e.reason != ""
}

// Delete removes a key; one that is not there is fine.
func (b *Builder) Delete(key string) {
	if e := b.entries[key]; e != nil {
		b.remove(e)
	}
	if short := excerpt(key); b.aside[short] != "" {
		delete(b.aside, short)
		b.badDirty = true
	}
}

// Reset begins a new listing: what is not Put again before the next Snapshot is gone from it.
func (b *Builder) Reset() {
	b.round++
	b.badDirty = b.badDirty || len(b.aside) > 0
	clear(b.aside)
}

// Replace makes the given pairs the whole content, as a listing of the store does. It walks them twice: known keys
// come first, then new ones in the order given, so that what is there has room before what is new.
func (b *Builder) Replace(pairs iter.Seq2[string, []byte]) {
	b.Reset()
	for key, value := range pairs {
		if b.entries[key] != nil {
			b.Put(key, value)
		}
	}
	b.sweep()
	for key, value := range pairs {
		if b.entries[key] == nil {
			b.Put(key, value)
		}
	}
}

// Snapshot is the current content, complete up to the given revision. It costs what changed since the last one
// plus one step per service.
func (b *Builder) Snapshot(revision int64) *Snapshot {
	b.sweep()
	next := *b.last
	next.Revision = revision
	if len(b.dirty) > 0 {
		next.Services = b.rebuild(b.last.Services)
		clear(b.dirty)
	}
	if b.badDirty {
		next.Quarantined = b.quarantined()
		b.badDirty = false
	}
	if b.extDirty {
		next.Extra = b.extra()
		b.extDirty = false
	}
	if !b.last.Same(&next) || b.last.Revision != revision {
		b.last = &next
	}
	return b.last
}

func (b *Builder) sweep() {
	if b.swept == b.round {
		return
	}
	for _, e := range b.entries {
		if e.round != b.round {
			b.remove(e)
		}
	}
	b.swept = b.round
}

func (b *Builder) join(e *entry, service string) {
	g := b.services[service]
	if g == nil {
		g = &group{name: service, entries: map[string]*entry{}}
		b.services[service] = g
		at, _ := slices.BinarySearch(b.names, service)
		b.names = slices.Insert(b.names, at, service)
	}
	g.entries[e.key] = e
	e.group = g
	b.dirty[service] = true
}

func (b *Builder) remove(e *entry) {
	delete(b.entries, e.key)
	b.bytes -= len(e.key) + len(e.raw)
	b.badDirty = b.badDirty || e.reason != ""
	switch {
	case e.group != nil:
		delete(e.group.entries, e.key)
		b.dirty[e.group.name] = true
	case e.reason == "":
		b.extDirty = true
	}
}

// rebuild makes the new list of services, and gives the old one back when it came out the same.
func (b *Builder) rebuild(old []*Service) []*Service {
	list, moved := slices.Clone(old), false
	for name := range b.dirty {
		g := b.services[name]
		before := g.built
		g.build()
		if len(g.entries) == 0 {
			delete(b.services, name)
			at, _ := slices.BinarySearch(b.names, name)
			b.names = slices.Delete(b.names, at, at+1)
		}
		if (before == nil) != (g.built == nil) {
			moved = true
		} else if before != g.built {
			list[find(list, name)] = g.built
		}
	}
	if moved {
		list = make([]*Service, 0, len(b.names))
		for _, name := range b.names {
			if g := b.services[name]; g.built != nil {
				list = append(list, g.built)
			}
		}
	}
	if slices.Equal(list, old) {
		return old
	}
	return list
}

func find(list []*Service, name string) int {
	at, _ := slices.BinarySearchFunc(list, name, func(s *Service, name string) int { return cmp.Compare(s.Name, name) })
	return at
}

func (b *Builder) quarantined() []Quarantined {
	var list []Quarantined
	for _, e := range b.entries {
		if e.reason != "" {
			list = append(list, Quarantined{Key: e.key, Reason: e.reason, Value: excerpt(e.raw)})
		}
	}
	for key, reason := range b.aside {
		list = append(list, Quarantined{Key: key, Reason: reason})
	}
	slices.SortFunc(list, func(x, y Quarantined) int { return cmp.Compare(x.Key, y.Key) })
	if slices.Equal(list, b.last.Quarantined) {
		return b.last.Quarantined
	}
	return list
}

func (b *Builder) extra() []Pair {
	var list []Pair
	for _, e := range b.entries {
		if e.group == nil && e.reason == "" {
			list = append(list, Pair{e.key, e.raw})
		}
	}
	slices.SortFunc(list, byKey)
	if slices.Equal(list, b.last.Extra) {
		return b.last.Extra
	}
	return list
}

func byKey(x, y Pair) int { return cmp.Compare(x.Key, y.Key) }

// build makes the service anew from its entries, reusing every old part that came out the same.
func (g *group) build() {
	keys := slices.Sorted(maps.Keys(g.entries))
	old := g.built
	s := &Service{Name: g.name}
	taken := make(map[int]bool, len(keys))
	at := 0 // in old; both lists are in key order, and the keys of one service sort as its instances do
	for _, key := range keys {
		e := g.entries[key]
		if e.inst == nil {
			continue
		}
		inst, id := e.inst, freeID(taken, e.inst.ID)
		for old != nil && at < len(old.pairs) && old.pairs[at].Key < key {
			at++
		}
		if old != nil && at < len(old.pairs) && old.pairs[at] == (Pair{key, e.raw}) && old.Instances[at].ID == id {
			inst = old.Instances[at]
		} else if inst.ID != id {
			moved := *inst
			moved.ID = id
			inst = &moved
		}
		s.Instances = append(s.Instances, inst)
		s.pairs = append(s.pairs, Pair{key, e.raw})
	}
	switch {
	case len(s.Instances) == 0:
		g.built = nil
	case old == nil || !slices.Equal(old.Instances, s.Instances):
		s.Meta, s.Conflicts = unite(s.Instances)
		g.built = s
	}
}
