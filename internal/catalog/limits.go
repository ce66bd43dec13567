package catalog

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Limits bound what a Builder keeps, so that nobody with write access to the store can exhaust the memory of its
// readers or of HAProxy. A record beyond a limit is quarantined until there is room; the records that were there before it
// stay.
type Limits struct {
	// Keys is the number of keys of all kinds.
	Keys int
	// Bytes is the length of all keys and values together. A value that is too long for a record counts with its
	// beginning only.
	Bytes int
}

// DefaultLimits returns the limits of a Builder: they cost about 120 MB of memory in each HAProxy worker, and a few times
// Bytes in this process.
func DefaultLimits() Limits { return Limits{Keys: 20000, Bytes: 64 << 20} }

const (
	// usualBytes is a generous length of a record.
	usualBytes = 2 << 10
	// maxExcluded is how many keys beyond a limit are kept until there is room, and maxShown how many of them are listed
	// among the quarantined records.
	maxExcluded = 1000
	maxShown    = 100
	// maxUnselected bounds the count of records that are not selected, since each costs some memory.
	maxUnselected = 1 << 20
)

// overLimit returns why a key cannot be kept with a value of the given length, or "". old is its entry, if it has one.
func (b *Builder) overLimit(key string, old *entry, value int) string {
	grows := value
	if old == nil {
		grows += len(key)
	} else {
		grows -= len(old.raw)
	}
	switch {
	case len(key) > MaxStringBytes:
		return fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(key), MaxStringBytes)
	case old != nil && value <= usualBytes:
		return "" // a full store must not stop a known instance from moving
	case old == nil && len(b.entries) >= b.o.Limits.Keys:
		return fmt.Sprintf("there are more than %d keys, and this one came later; remove some, or raise --max-records", b.o.Limits.Keys)
	case grows > 0 && b.bytes+grows > b.o.Limits.Bytes:
		return fmt.Sprintf("keys and values have more than %d bytes together, and this one came later; remove some", b.o.Limits.Bytes)
	}
	return ""
}

// excluded is a key beyond a limit.
type excluded struct {
	reason string
	value  []byte // nil if it is longer than usual, and so not kept
	order  int    // the lower, the earlier it came
}

// exclude quarantines a key that is beyond a limit. It is put as soon as there is room, if it is among the first.
func (b *Builder) exclude(key, reason string, value []byte) {
	key = excludedKey(key)
	old, known := b.excluded[key]
	if !known && len(b.excluded) >= maxExcluded {
		b.forget()
		return
	}
	x := &excluded{reason: reason}
	if x.order = b.orders; known {
		x.order = old.order
	}
	b.orders++
	switch {
	case len(key) > MaxStringBytes: // there will never be room for it
	case len(value) <= usualBytes:
		x.value = slices.Clone(value)
	default:
		b.forget()
	}
	b.excluded[key], b.changedQuarantine = x, true
}

// forget notes that a key is beyond a limit and not kept. What left before has made no room for it.
func (b *Builder) forget() {
	if !b.forgotten {
		b.forgotten, b.room = true, false
	}
}

// include ends an exclusion.
func (b *Builder) include(key string) {
	key = excludedKey(key)
	if _, known := b.excluded[key]; known {
		delete(b.excluded, key)
		b.changedQuarantine = true
	}
}

// admit puts excluded keys for which there is room now, the earliest first.
func (b *Builder) admit() {
	if len(b.excluded) == 0 || len(b.entries) >= b.o.Limits.Keys {
		return
	}
	for _, key := range b.inOrder() {
		if x := b.excluded[key]; x.value != nil && b.overLimit(key, nil, len(x.value)) == "" {
			b.Put(key, x.value)
		}
		if len(b.entries) >= b.o.Limits.Keys {
			return
		}
	}
}

// inOrder returns the excluded keys, the earliest first.
func (b *Builder) inOrder() []string {
	return slices.SortedFunc(maps.Keys(b.excluded), func(x, y string) int { return cmp.Compare(b.excluded[x].order, b.excluded[y].order) })
}

// Incomplete reports whether something has left since the last listing while keys were beyond a limit that only a listing
// can bring back: those that came when too many were beyond it already, and long ones.
func (b *Builder) Incomplete() bool { return b.forgotten && b.room }

// Limits returns the limits in force.
func (b *Builder) Limits() Limits { return b.o.Limits }

// Used returns how much of the limits is used.
func (b *Builder) Used() Limits { return Limits{Keys: len(b.entries), Bytes: b.bytes} }

// excludedKey cuts only keys that are never kept, so that two keys that may be kept are never mistaken for each other.
func excludedKey(key string) string {
	if len(key) > MaxStringBytes {
		return excerpt(key)
	}
	return key
}

// kept returns the part of a value that is worth keeping: of one that no record may have, enough to show it.
func (b *Builder) kept(key string, value []byte) []byte {
	if len(value) > MaxValueBytes && b.isRecord(key) {
		value = value[:excerptBytes+1]
	}
	return value
}
