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
	family, _, dotted := strings.Cut(key, ".")
	switch family {
	case "http", "tcp", "backend", "canary":
		return dotted
	case "check":
		return true
	}
	return key == "balance"
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

// Same reports whether two snapshots of one Builder have the same content, whatever their revisions and whatever is not selected. It costs one step per
// service, quarantined record and extra pair.
func (s *Snapshot) Same(other *Snapshot) bool {
	return slices.Equal(s.Services, other.Services) && slices.Equal(s.Quarantined, other.Quarantined) &&
		slices.Equal(s.Extra, other.Extra) && slices.Equal(s.unserved, other.unserved)
}

// Counts returns the number of services and of all their instances.
func (s *Snapshot) Counts() (services, instances int) {
	for _, svc := range s.Services {
		instances += len(svc.Instances)
	}
	return len(s.Services), instances
}

// Pairs returns the keys and raw values of everything that is watched, sorted by key, for the store functions of templates.
// Quarantined records are among them: a template may read keys below the record prefix that were never meant to be records,
// and every value is escaped for its place. A raw value is what was written, such as JSON text; only the fields of Instance
// are free of line breaks. Of a record that the shrink guard keeps although it was overwritten, the newest value is given.
func (s *Snapshot) Pairs() iter.Seq2[string, string] {
	pairs := slices.Concat(s.unserved, s.Extra)
	for _, svc := range s.Services {
		pairs = append(pairs, svc.pairs...)
	}
	slices.SortStableFunc(pairs, func(x, y Pair) int { return cmp.Compare(x.Key, y.Key) })
	pairs = slices.CompactFunc(pairs, func(x, y Pair) bool { return x.Key == y.Key })
	return func(yield func(key, value string) bool) {
		for _, p := range pairs {
			if !yield(p.Key, p.Value) {
				return
			}
		}
	}
}
