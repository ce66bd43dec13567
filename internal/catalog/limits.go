package catalog

import "fmt"

// Limits bound what a Builder keeps, so that whoever may write to the store cannot exhaust the memory of those who
// read it, HAProxy's included. A record beyond a limit is set aside; those that were there before it stay.
type Limits struct {
	// Keys is the number of keys, of all kinds.
	Keys int
	// Bytes is the length of all keys and values together. Of a value that is too long by itself nothing but its
	// beginning counts.
	Bytes int
}

// DefaultLimits are a Builder's own: about 120 MB of HAProxy's memory per worker, and a few times Bytes of ours.
func DefaultLimits() Limits { return Limits{Keys: 20000, Bytes: 64 << 20} }

// usualBytes is a generous length for a record.
const usualBytes = 2 << 10

// mostSetAside bounds the list of keys that are not even kept as invalid.
const mostSetAside = 100

// SetLimits changes the limits for what is Put from now on; 0 keeps the default.
func (b *Builder) SetLimits(l Limits) {
	if l.Keys > 0 {
		b.limits.Keys = l.Keys
	}
	if l.Bytes > 0 {
		b.limits.Bytes = l.Bytes
	}
}

// SetRefuse adds a rule of the caller's own: a record for whose instance refuse gives a reason is quarantined. It is to
// be set before the first Put, and to give the same answer for the same instance every time.
func (b *Builder) SetRefuse(refuse func(*Instance) (reason string)) { b.refuse = refuse }

func (b *Builder) unwanted(i *Instance) string {
	if b.refuse == nil {
		return ""
	}
	return b.refuse(i)
}

// admit tells whether there is room for a new key, and for a known one (old is its entry) with a new value. A key without
// room is listed as set aside, without its value; it is Put again by the next listing of the store.
func (b *Builder) admit(key string, old *entry, value int) bool {
	grows := value
	if old == nil {
		grows += len(key)
	} else {
		grows -= len(old.raw)
	}
	switch {
	case len(key) > MaxStringBytes:
		b.setAside(key, fmt.Sprintf("the key has %d bytes; at most %d are allowed", len(key), MaxStringBytes))
		return false
	case old != nil && value <= usualBytes: // a service that was there first must be able to move
	case old == nil && len(b.entries) >= b.limits.Keys:
		b.setAside(key, fmt.Sprintf("there are more than %d keys, and this one came later; remove some, or raise --max-records", b.limits.Keys))
		return false
	case grows > 0 && b.bytes+grows > b.limits.Bytes:
		b.setAside(key, fmt.Sprintf("keys and values have more than %d bytes together, and this one came later; remove some", b.limits.Bytes))
		return false
	}
	b.bytes += grows
	return true
}

func (b *Builder) setAside(key, reason string) {
	key = excerpt(key)
	if _, known := b.aside[key]; known || len(b.aside) < mostSetAside {
		b.aside[key] = reason
		b.badDirty = true
	}
}

// kept is what is worth keeping of a value: of one that no record may have, enough to show it.
func (b *Builder) kept(key string, value []byte) string {
	if len(value) > MaxValueBytes && len(key) >= len(b.prefix) && key[:len(b.prefix)] == b.prefix {
		return string(value[:excerptBytes+1])
	}
	return string(value)
}
