package catalog

import (
	"fmt"
)

// Limits bound what a Builder keeps, so that nobody with write access to the store can exhaust the memory of its
// readers or of HAProxy. A record beyond a limit is quarantined; the records that were there before it stay.
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
	// maxExcluded bounds the list of keys beyond a limit.
	maxExcluded = 100
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

// exclude quarantines a key that is beyond a limit. Its value is not kept: the next listing puts it again.
func (b *Builder) exclude(key, reason string) {
	key = excludedKey(key)
	if _, known := b.excluded[key]; known || len(b.excluded) < maxExcluded {
		b.excluded[key] = reason
		b.changedQuarantine = true
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
