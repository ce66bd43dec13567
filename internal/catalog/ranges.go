package catalog

import (
	"path"
	"slices"
	"strings"
)

// Ranges are the parts of the store that are watched, sorted. One that ends in a slash stands for all keys that begin with
// it, any other for that key alone.
type Ranges []string

// NewRanges returns the ranges of the records below prefix and of further keys, without those that lie inside another one.
// An empty prefix means that there are no records. A further key with a slash at its end is a directory; without one it
// is the key itself and what is below it.
func NewRanges(prefix string, keys []string) Ranges {
	var all Ranges
	if prefix != "" {
		all = append(all, NormalizePrefix(prefix))
	}
	for _, k := range keys {
		dir := NormalizePrefix(k)
		all = append(all, dir)
		if !strings.HasSuffix(k, "/") && dir != "/" {
			all = append(all, strings.TrimSuffix(dir, "/"))
		}
	}
	slices.Sort(all)
	var kept Ranges
	for _, r := range all {
		if len(kept) == 0 || !kept.Hold(r) {
			kept = append(kept, r)
		}
	}
	return kept
}

// Hold reports whether a key is in one of the ranges.
func (r Ranges) Hold(key string) bool {
	return slices.ContainsFunc(r, func(one string) bool {
		return one == key || strings.HasSuffix(one, "/") && strings.HasPrefix(key, one)
	})
}

// Touch reports whether any key that begins with prefix could be in one of the ranges.
func (r Ranges) Touch(prefix string) bool {
	return r.Hold(prefix) || slices.ContainsFunc(r, func(one string) bool { return strings.HasPrefix(one, prefix) })
}

// CleanKey returns a key as confd and the store functions of templates read it: with one slash in front, none at the end,
// and none doubled.
func CleanKey(key string) string { return path.Join("/", key) }
