package catalog

import (
	"cmp"
	"slices"
)

// Record is one instance as it was in a snapshot.
type Record struct {
	Service  string
	Instance *Instance
	pair     Pair
}

// Missing returns the records of old that s does not have, by service and instance. A record that changed is not missing;
// one that became invalid is. It costs one step per service and per instance of those that differ.
func (s *Snapshot) Missing(old *Snapshot) []Record {
	var missing []Record
	rest := s.Services // both lists are sorted
	for _, before := range old.Services {
		if len(rest) > 0 && rest[0] == before { // the usual case, without a search
			rest = rest[1:]
			continue
		}
		at, found := findService(rest, before.Name)
		rest = rest[at:]
		var now *Service
		if found {
			now = rest[0]
		}
		if now == before {
			continue
		}
		for i, inst := range before.Instances {
			if !now.Has(inst.Name) {
				missing = append(missing, Record{before.Name, inst, before.pairs[i]})
			}
		}
	}
	return missing
}

// Has reports whether the service has an instance of this name; a nil service has none.
func (s *Service) Has(instance string) bool {
	if s == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(s.Instances, instance, func(i *Instance, name string) int { return cmp.Compare(i.Name, name) })
	return found
}

// With returns s with the given records of an older snapshot of the same Builder added. A record that s has too keeps the
// value of s. Services without any of the records keep their pointers.
func (s *Snapshot) With(records []Record) *Snapshot {
	byService := map[string][]Record{}
	for _, r := range records {
		if !s.Service(r.Service).Has(r.Instance.Name) {
			byService[r.Service] = append(byService[r.Service], r)
		}
	}
	if len(byService) == 0 {
		return s
	}
	next := *s
	next.Services = make([]*Service, 0, len(s.Services)+len(byService))
	for _, svc := range s.Services {
		next.Services = append(next.Services, svc.with(byService[svc.Name]))
		delete(byService, svc.Name)
	}
	for name, records := range byService {
		next.Services = append(next.Services, (&Service{Name: name}).with(records))
	}
	slices.SortFunc(next.Services, func(x, y *Service) int { return cmp.Compare(x.Name, y.Name) })
	return &next
}

func (s *Service) with(records []Record) *Service {
	if len(records) == 0 {
		return s
	}
	all := slices.Clone(records)
	for i, inst := range s.Instances {
		all = append(all, Record{s.Name, inst, s.pairs[i]})
	}
	slices.SortFunc(all, func(x, y Record) int { return cmp.Compare(x.Instance.Name, y.Instance.Name) })
	next := &Service{Name: s.Name}
	used := make(map[int]bool, len(all))
	for _, r := range all {
		// The same numbers that the Builder gives when it has all the records.
		next.Instances = append(next.Instances, r.Instance.withID(freeID(used, hashID(r.Instance.Name))))
		next.pairs = append(next.pairs, r.pair)
	}
	next.Meta, next.Conflicts = unite(next.Instances)
	return next
}

// Without returns s without the instances for which why gives a reason; they are quarantined with it. Services that have
// none of them keep their pointers, and the other instances keep their ids.
func (s *Snapshot) Without(why func(*Instance) string) *Snapshot {
	next := *s
	next.Services = make([]*Service, 0, len(s.Services))
	var found []Quarantined
	for _, svc := range s.Services {
		kept := &Service{Name: svc.Name}
		for i, inst := range svc.Instances {
			if reason := why(inst); reason != "" {
				next.unserved = append(slices.Clip(next.unserved), svc.pairs[i])
				found = append(found, quarantine(svc.pairs[i].Key, refusal(reason), svc.pairs[i].Value))
				continue
			}
			kept.Instances, kept.pairs = append(kept.Instances, inst), append(kept.pairs, svc.pairs[i])
		}
		switch len(kept.Instances) {
		case len(svc.Instances):
			next.Services = append(next.Services, svc)
		case 0:
		default:
			kept.Meta, kept.Conflicts = unite(kept.Instances)
			next.Services = append(next.Services, kept)
		}
	}
	if len(found) == 0 {
		return s
	}
	slices.SortFunc(next.unserved, func(x, y Pair) int { return cmp.Compare(x.Key, y.Key) })
	next.Quarantined = append(found, s.Quarantined...)
	slices.SortFunc(next.Quarantined, func(x, y Quarantined) int { return cmp.Compare(x.Key, y.Key) })
	return &next
}

// WithExtra returns s with pairs outside the record prefix added, but for those whose keys it has.
func (s *Snapshot) WithExtra(pairs []Pair) *Snapshot {
	next := *s
	next.Extra = slices.Concat(s.Extra, pairs)
	slices.SortStableFunc(next.Extra, func(x, y Pair) int { return cmp.Compare(x.Key, y.Key) })
	next.Extra = slices.CompactFunc(next.Extra, func(x, y Pair) bool { return x.Key == y.Key })
	return &next
}
