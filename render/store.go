package render

import (
	"fmt"
	"path"
	"slices"
	"sort"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
)

// KVPair is the result of the store functions get and gets, with confd's name.
type KVPair struct {
	Key   string
	Value string
}

// store is what confd's store functions read. Keys are clean, as confd makes them: an etcd key /a//b/ is /a/b here.
type store struct {
	pairs   []KVPair       // sorted by key
	watched catalog.Ranges // what the pairs are the whole content of; nil if that is not known
	confd   bool           // answers are confd's, to the letter

	covered catalog.Ranges // with confd: what the keys of the resource cover, as templates name it
	outside func(question string)
}

// newStore returns what templates see of a snapshot: everything, or with a resource of confd what confd shows them.
func newStore(snap *catalog.Snapshot, resource *confd.Resource) *store {
	s := &store{watched: snap.Watched, confd: resource != nil}
	if resource != nil {
		var names []string
		for _, key := range resource.Keys() {
			names = append(names, resource.Strip(key))
		}
		s.covered = catalog.NewRanges("", names)
	}
	var watched catalog.Ranges
	if resource != nil {
		watched, s.watched = catalog.NewRanges("", resource.Keys()), nil
	}
	var unclean []KVPair
	for k, v := range snap.Pairs() {
		var name string
		switch {
		case resource == nil:
			name = catalog.CleanKey(k)
		case watched.Hold(k):
			name = resource.Strip(k)
		default:
			continue
		}
		if resource == nil && name != k {
			unclean = append(unclean, KVPair{name, v})
		} else {
			s.pairs = append(s.pairs, KVPair{name, v})
		}
	}
	if s.pairs = append(s.pairs, unclean...); !slices.IsSortedFunc(s.pairs, byKey) {
		slices.SortStableFunc(s.pairs, byKey)
	}
	// A key that is clean in etcd wins over its other spellings.
	s.pairs = slices.CompactFunc(s.pairs, func(a, b KVPair) bool { return a.Key == b.Key })
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
	found := []KVPair{}
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	for _, kv := range s.from(literalPrefix(pattern)) {
		if ok, _ := path.Match(pattern, kv.Key); ok { // the pattern is valid, see above
			found = append(found, kv)
		}
	}
	return found, nil
}

// list returns the names directly below a key, each once and sorted; with dirs only those that have names below them. A
// key that is itself in the store lists its own name, as in confd.
func (s *store) list(asked string, dirs bool) []string {
	if s.confd {
		return s.listAsConfd(asked, dirs)
	}
	names := []string{}
	key := strings.TrimSuffix(catalog.CleanKey(asked), "/")
	if kv, ok := s.get(key); ok && !dirs && !strings.HasSuffix(asked, "/") {
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

// listAsConfd lists as confd's memkv does. Its oddities are kept: of the root it lists the keys directly in it and no
// directories, and what it is asked for is compared as it is written.
func (s *store) listAsConfd(asked string, dirs bool) []string {
	names := []string{}
	if kv, ok := s.get(asked); ok && !dirs {
		names = append(names, path.Base(kv.Key))
	}
	dir := path.Clean(asked)
	below := s.from(strings.TrimSuffix(dir, "/") + "/")
	for _, kv := range below {
		_, deeper, isDir := strings.Cut(kv.Key[len(strings.TrimSuffix(dir, "/"))+1:], "/")
		switch {
		case kv.Key == asked, dir == "/" && isDir:
		case !dirs:
			name, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(kv.Key, asked), "/"), "/")
			names = append(names, name)
		case strings.HasPrefix(kv.Key, asked) && isDir && deeper != "":
			name, _, _ := strings.Cut(kv.Key[len(dir)+1:], "/")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// ask checks that what a function asks for can be known: otherwise the answer would be empty whatever etcd holds. That is an error,
// but with confd, whose answer is the same, it is only noted.
func (s *store) ask(function, asked, flag string, within func(catalog.Ranges) bool) error {
	switch {
	case s.confd && s.outside != nil && !within(s.covered):
		s.outside(fmt.Sprintf("%s %q", function, asked))
	case s.watched != nil && !within(s.watched):
		return fmt.Errorf("%s %q: no such key is watched, only %s: add --keys %s", function, asked, strings.Join(s.watched, " "), flag)
	}
	return nil
}

func holdsKey(r catalog.Ranges, key string) bool { return r.Hold(key) || r.Hold(key+"/") }

// askKey checks that a key can be known.
func (s *store) askKey(function, key string) error {
	return s.ask(function, key, key, func(r catalog.Ranges) bool { return holdsKey(r, key) })
}

// askGlob checks that a key which matches a pattern can be known.
func (s *store) askGlob(function, pattern string) error {
	literal := literalPrefix(pattern)
	return s.ask(function, pattern, literal[:strings.LastIndexByte(literal, '/')+1], func(r catalog.Ranges) bool {
		return r.Touch(literal) || literal == pattern && holdsKey(r, pattern)
	})
}

// askDir checks that a key below a directory can be known.
func (s *store) askDir(function, asked string) error {
	dir := strings.TrimSuffix(catalog.CleanKey(asked), "/")
	return s.ask(function, asked, dir+"/", func(r catalog.Ranges) bool { return r.Touch(dir+"/") || r.Hold(dir) })
}

// literalPrefix returns a pattern up to its first wildcard.
func literalPrefix(pattern string) string {
	if i := strings.IndexAny(pattern, `*?[\`); i >= 0 {
		return pattern[:i]
	}
	return pattern
}

// keys returns the store of the current rendering.
func (t *Templates) keys(function string) (*store, error) {
	r := t.run
	if err := r.outsideMemo(function); err != nil {
		return nil, err
	}
	resource := r.source.resource
	if resource != nil {
		if err := unwatched(resource, r.snap.Watched); err != nil {
			return nil, t.fromConfd(err)
		}
	}
	if r.stores[resource] == nil {
		r.stores[resource] = newStore(r.snap, resource)
		r.stores[resource].outside = func(question string) { t.outside(resource, question) }
	}
	return r.stores[resource], nil
}

// one returns the pair of a key.
func (t *Templates) one(function, key string) (kv KVPair, found bool, err error) {
	s, err := t.keys(function)
	if err != nil {
		return KVPair{}, false, err
	}
	if !s.confd {
		key = catalog.CleanKey(key)
	}
	if err := s.askKey(function, key); err != nil {
		return KVPair{}, false, err
	}
	kv, found = s.get(key)
	return kv, found, nil
}

// many returns the pairs that match a pattern.
func (t *Templates) many(function, pattern string) ([]KVPair, error) {
	s, err := t.keys(function)
	if err != nil {
		return nil, err
	}
	pairs, err := s.glob(pattern)
	if err != nil {
		return nil, err
	}
	return pairs, s.askGlob(function, pattern)
}

func (t *Templates) names(function, key string, dirs bool) ([]string, error) {
	s, err := t.keys(function)
	if err != nil {
		return nil, err
	}
	if err := s.askDir(function, key); err != nil {
		return nil, err
	}
	return s.list(key, dirs), nil
}

func (t *Templates) exists(key string) (bool, error) {
	_, found, err := t.one("exists", key)
	return found, err
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
	kv, found, err := t.one("get", key)
	if err == nil && !found {
		err = noKey(key)
	}
	return kv, err
}

func (t *Templates) gets(pattern string) ([]KVPair, error) { return t.many("gets", pattern) }

func (t *Templates) getv(key string, fallback ...string) (string, error) {
	kv, found, err := t.one("getv", key)
	switch {
	case err != nil || found:
		return kv.Value, err
	case len(fallback) > 0:
		return fallback[0], nil
	}
	return "", noKey(key)
}

// getvs returns the values of the matching keys, sorted, as confd does.
func (t *Templates) getvs(pattern string) ([]string, error) {
	pairs, err := t.many("getvs", pattern)
	values := make([]string, len(pairs))
	for i, kv := range pairs {
		values[i] = kv.Value
	}
	slices.Sort(values)
	return values, err
}

func (t *Templates) ls(key string) ([]string, error) { return t.names("ls", key, false) }

func (t *Templates) lsdir(key string) ([]string, error) { return t.names("lsdir", key, true) }
