package catalog

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"
)

// ServiceWide reports whether a meta key is a setting of the service as a whole, on which its instances must agree. Other
// keys, such as node or container_id, are facts about one instance and may differ.
func ServiceWide(key string) bool {
	return key == "balance" || strings.HasPrefix(key, "http.") || strings.HasPrefix(key, "tcp.") ||
		strings.HasPrefix(key, "check.")
}

// unite merges the meta of the instances; where they disagree the first instance by name wins.
func unite(instances []*Instance) (map[string]string, []Conflict) {
	meta, winner := map[string]string{}, map[string]string{}
	conflicts := map[string]Conflict{}
	for _, inst := range instances {
		for key, value := range inst.Meta {
			have, there := meta[key]
			if !there {
				meta[key], winner[key] = value, inst.Name
				continue
			}
			if _, known := conflicts[key]; known || have == value || !ServiceWide(key) {
				continue
			}
			conflicts[key] = Conflict{Key: key, Winner: winner[key], Value: have, Loser: inst.Name, Rejected: value}
		}
	}
	return meta, slices.SortedFunc(maps.Values(conflicts), func(x, y Conflict) int { return cmp.Compare(x.Key, y.Key) })
}

// Same reports whether two snapshots of one Builder have the same content, whatever their revisions. It costs one step per
// service, quarantined record and extra pair.
func (s *Snapshot) Same(other *Snapshot) bool {
	return slices.Equal(s.Services, other.Services) && slices.Equal(s.Quarantined, other.Quarantined) &&
		slices.Equal(s.Extra, other.Extra)
}

// Counts returns the number of services and of all their instances.
func (s *Snapshot) Counts() (services, instances int) {
	for _, svc := range s.Services {
		instances += len(svc.Instances)
	}
	return len(s.Services), instances
}

// Pairs iterates over the keys and raw values of the records and of the extra pairs, sorted by key, for the store functions
// of templates. Quarantined records are not among them, so that a template that reads raw values is protected too. A raw
// value is what was written, such as JSON text; only the fields of Instance are free of line breaks.
func (s *Snapshot) Pairs() iter.Seq2[string, string] {
	return func(yield func(key, value string) bool) {
		services := slices.Clone(s.Services)
		// "a-b/x" sorts before "a/x", although "a" sorts before "a-b".
		slices.SortFunc(services, func(x, y *Service) int { return cmp.Compare(x.Name+"/", y.Name+"/") })
		extra := s.Extra
		for _, svc := range services {
			for _, p := range svc.pairs {
				for len(extra) > 0 && extra[0].Key < p.Key {
					if !yield(extra[0].Key, extra[0].Value) {
						return
					}
					extra = extra[1:]
				}
				if !yield(p.Key, p.Value) {
					return
				}
			}
		}
		for _, p := range extra {
			if !yield(p.Key, p.Value) {
				return
			}
		}
	}
}
