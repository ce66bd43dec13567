package render

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"nuncio/internal/catalog"
)

// KVPair is the result of the store functions get and gets, with confd's name.
type KVPair struct {
	Key   string
	Value string
}

// store is what confd's store functions read.
type store struct{ pairs []KVPair } // sorted by key

func newStore(snap *catalog.Snapshot) *store {
	s := &store{}
	for k, v := range snap.Pairs() {
		s.pairs = append(s.pairs, KVPair{k, v})
	}
	if !slices.IsSortedFunc(s.pairs, byKey) {
		slices.SortFunc(s.pairs, byKey)
	}
	return s
}

func byKey(a, b KVPair) int { return strings.Compare(a.Key, b.Key) }

func (s *store) get(key string) (KVPair, bool) {
	i, found := slices.BinarySearchFunc(s.pairs, KVPair{Key: key}, byKey)
	if !found {
		return KVPair{}, false
	}
	return s.pairs[i], true
}

// from returns the pairs whose keys begin with prefix.
func (s *store) from(prefix string) []KVPair {
	start := sort.Search(len(s.pairs), func(i int) bool { return s.pairs[i].Key >= prefix })
	end := start + sort.Search(len(s.pairs)-start, func(i int) bool { return !strings.HasPrefix(s.pairs[start+i].Key, prefix) })
	return s.pairs[start:end]
}

func (s *store) glob(pattern string) ([]KVPair, error) {
	prefix := pattern
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		prefix = pattern[:i]
	}
	found := []KVPair{}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	for _, kv := range s.from(prefix) {
		if ok, _ := path.Match(pattern, kv.Key); ok { // the pattern is valid, see above
			found = append(found, kv)
		}
	}
	return found, nil
}

// list returns the names directly below a key, each once and sorted; with dirs only those that have names below them. A
// key that is itself in the store lists its own name, as in confd.
func (s *store) list(key string, dirs bool) []string {
	names := []string{}
	key = strings.TrimSuffix(key, "/")
	if kv, ok := s.get(key); ok && !dirs {
		names = append(names, path.Base(kv.Key))
	}
	for _, kv := range s.from(key + "/") {
		name, _, isDir := strings.Cut(kv.Key[len(key)+1:], "/")
		if name == "" || dirs && !isDir {
			continue
		}
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keys returns the store of the current rendering.
func (t *Templates) keys(function string) (*store, error) {
	r := t.run
	if err := r.outsideMemo(function); err != nil {
		return nil, err
	}
	if r.store == nil {
		r.store = newStore(r.snap)
	}
	return r.store, nil
}

func (t *Templates) exists(key string) (bool, error) {
	s, err := t.keys("exists")
	if err != nil {
		return false, err
	}
	_, ok := s.get(key)
	return ok, nil
}

func noKey(key string) error {
	return fmt.Errorf("the store has no key %q: give getv a default, or check with exists first", key)
}

// get is confd's get for one argument, a key, and sprig's get for two, a dictionary and a key.
func (t *Templates) get(args ...any) (any, error) {
	if len(args) == 2 {
		dict, ok1 := args[0].(map[string]any)
		key, ok2 := args[1].(string)
		if !ok1 || !ok2 {
			return nil, fmt.Errorf("get: the arguments must be a key of the store, or a dictionary and a key")
		}
		if v, ok := dict[key]; ok {
			return v, nil
		}
		return "", nil
	}
	if len(args) != 1 {
		return nil, fmt.Errorf("get: the argument must be one key")
	}
	key, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("get: the key must be text, not %T", args[0])
	}
	s, err := t.keys("get")
	if err != nil {
		return nil, err
	}
	kv, ok := s.get(key)
	if !ok {
		return nil, noKey(key)
	}
	return kv, nil
}

func (t *Templates) gets(pattern string) ([]KVPair, error) {
	s, err := t.keys("gets")
	if err != nil {
		return nil, err
	}
	return s.glob(pattern)
}

func (t *Templates) getv(key string, fallback ...string) (string, error) {
	s, err := t.keys("getv")
	if err != nil {
		return "", err
	}
	if kv, ok := s.get(key); ok {
		return kv.Value, nil
	}
	if len(fallback) > 0 {
		return fallback[0], nil
	}
	return "", noKey(key)
}

// getvs returns the values of the matching keys, sorted, as confd does.
func (t *Templates) getvs(pattern string) ([]string, error) {
	s, err := t.keys("getvs")
	if err != nil {
		return nil, err
	}
	pairs, err := s.glob(pattern)
	if err != nil {
		return nil, err
	}
	values := make([]string, len(pairs))
	for i, kv := range pairs {
		values[i] = kv.Value
	}
	slices.Sort(values)
	return values, nil
}

func (t *Templates) ls(key string) ([]string, error) {
	s, err := t.keys("ls")
	if err != nil {
		return nil, err
	}
	return s.list(key, false), nil
}

func (t *Templates) lsdir(key string) ([]string, error) {
	s, err := t.keys("lsdir")
	if err != nil {
		return nil, err
	}
	return s.list(key, true), nil
}
