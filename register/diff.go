package register

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"nuncio/internal/catalog"
)

// stored is one key in etcd.
type stored struct {
	value []byte
	mod   int64 // the revision of its last change
	lease int64
	owner owner
}

// identity determines which stored records are this registrar's own.
type identity struct {
	node, kind, prefix string

	only string // the single key of a registrar that is not the daemon; empty for the daemon
}

func (id identity) owns(key string, o owner) bool {
	return o.Registrar == id.kind && o.Node == id.node && (id.only == "" || id.only == key)
}

func (id identity) key(r Record) (string, error) {
	return catalog.Key(id.prefix, r.Service, r.Instance.Name)
}

// Change is one write that makes the store agree with Docker.
type Change struct {
	Key   string `json:"key"`
	Value string `json:"value,omitempty"` // empty for a removal
	// Why is "new", "changed", "lease" (the value stays, under a different lease) or "gone".
	Why string `json:"why"`
	// Reason is why the container of a removed record is skipped; empty when the container itself is gone.
	Reason string `json:"reason,omitempty"`

	mod   int64 // the key's revision that this change is based on, 0 where there is no key
	moves bool  // the endpoint gets another address
}

// plan has the changes to write, and the desired records that must not be written.
type plan struct {
	changes   []Change
	conflicts []Skipped
	records   []RecordStatus
}

// diff compares the desired records with those in etcd. Lease 0 stands for any lease, for a dry run. It is pure.
func diff(d Desired, actual map[string]stored, id identity, lease int64) plan {
	var p plan
	desired := map[string]bool{}
	for _, rec := range d.Records {
		key, err := id.key(rec)
		if err != nil {
			p.conflicts = append(p.conflicts, rec.skipped(err.Error()))
			continue
		}
		have, exists := actual[key]
		if exists && !id.owns(key, have.owner) {
			p.conflicts = append(p.conflicts, rec.skipped(fmt.Sprintf("key %s belongs to %s; it is left alone", key, have.owner)))
			continue
		}
		drained := exists && have.owner.Operator == operatorDrain &&
			have.owner.ContainerID == rec.Origin.ContainerID && have.owner.StartedAt == rec.Origin.StartedAt
		value, err := rec.encode(id.node, id.kind, drained)
		if err != nil {
			p.conflicts = append(p.conflicts, rec.skipped(err.Error()))
			continue
		}
		desired[key] = true
		ch := Change{Key: key, Value: string(value), mod: have.mod}
		switch {
		case !exists:
			ch.Why = "new"
		case !bytes.Equal(have.value, value):
			ch.Why = "changed"
			ch.moves = have.owner.address() != rec.Instance.Addr()
		case lease != 0 && have.lease != lease:
			ch.Why = "lease"
		}
		if ch.Why != "" {
			p.changes = append(p.changes, ch)
		}
		p.records = append(p.records, rec.status(key, drained, ch.Why == ""))
	}
	for _, key := range slices.Sorted(maps.Keys(actual)) {
		have := actual[key]
		if !desired[key] && id.owns(key, have.owner) && !d.keeps(have.owner) {
			p.changes = append(p.changes, Change{Key: key, Why: "gone", Reason: d.reasonFor(have.owner), mod: have.mod})
		}
	}
	// A port that one container gave up may already belong to a different one: removals come first, then endpoints that
	// move away, so that no record is added while an outdated one has the same address.
	slices.SortStableFunc(p.changes, func(a, b Change) int { return cmp.Compare(a.rank(), b.rank()) })
	return p
}

// keeps reports whether a record that is not desired stays nevertheless.
func (d Desired) keeps(o owner) bool {
	start, noAddress := d.NoAddress[o.ContainerID]
	// A container that was started again has different ports: its old address may already belong to a different one.
	return d.Unknown[o.ContainerID] || noAddress && start == o.StartedAt
}

// reasonFor returns why the container of a stored record is skipped; empty when the container is gone.
func (d Desired) reasonFor(o owner) string {
	var reasons []string
	for _, s := range d.Skipped {
		if s.ContainerID != "" && s.ContainerID == shortID(o.ContainerID) {
			reasons = append(reasons, s.Reason)
		}
	}
	return strings.Join(reasons, "; ")
}

func shortID(id string) string { return id[:min(len(id), 12)] }

func (c Change) rank() int {
	switch {
	case c.Value == "":
		return 0
	case c.moves:
		return 1
	}
	return 2
}

func (o owner) address() string { return net.JoinHostPort(o.Host, o.Port.String()) }

func (r Record) skipped(reason string) Skipped {
	return Skipped{
		Container:   cmp.Or(r.Origin.Container, r.Service+"/"+r.Instance.Name),
		ContainerID: shortID(r.Origin.ContainerID), Reason: reason,
	}
}
