package certfiles

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
	"nuncio/watch"
)

// last is the set that was made last, and what it was made of. Nearly every change is one of endpoints, and must not cost a look
// at a thousand certificates.
type last struct {
	rendered haproxy.Files
	uses     []haproxy.SSLFile
	read     map[string]watch.Outside
	set      Set
	judged   map[string]bool // names that decisions were made about
}

// reuse makes a set of the last one, if nothing about certificates has changed since HAProxy took that.
func (k *Keeper) reuse(files, lastGood haproxy.Files, uses []haproxy.SSLFile) (Set, bool) {
	l := k.last
	if l == nil || !lastGood.Is(l.set.Files) || !files.SameNames(l.rendered) || !slices.Equal(uses, l.uses) {
		return Set{}, false
	}
	if k.outside != nil && !sameOutside(k.follow(sorted(l.read)), l.read) {
		return Set{}, false
	}
	changed := map[string]haproxy.Text{}
	for _, name := range files.Names() {
		text := files.Text(name)
		switch {
		case text.Equal(l.rendered.Text(name)):
			continue
		case l.judged[name] || l.judged[strings.TrimSuffix(name, ".key")]:
			return Set{}, false
		case name == haproxy.ConfigFile && k.outside != nil:
			text, _ = text.Inside()
		}
		changed[name] = text
	}
	set := l.set
	set.Files = l.set.Files.With(changed)
	next := *l
	next.rendered, next.set = files, set
	k.last = &next
	return set, true
}

// sameOutside reports whether nothing has been read since: what has is in a new map.
func sameOutside(a, b map[string]watch.Outside) bool {
	return maps.EqualFunc(a, b, func(x, y watch.Outside) bool {
		same := x.Err == nil && y.Err == nil || x.Err != nil && y.Err != nil && x.Err.Error() == y.Err.Error()
		return same && x.IsDir == y.IsDir && reflect.ValueOf(x.Files).Pointer() == reflect.ValueOf(y.Files).Pointer()
	})
}
