package certfiles

import (
	"cmp"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
	"nuncio/watch"
)

// Outside reads files outside of the set, and follows those that were asked for last.
type Outside interface {
	Read(paths []string) map[string]watch.Outside
}

var _ Outside = (*watch.Files)(nil)

// State says what is done with a file.
type State string

// The states of a file.
const (
	Current State = "current"  // its content is used
	Kept    State = "kept"     // the last good content is used, for Reason
	LeftOut State = "left out" // there is no good content, and the others go on without it
	Broken  State = "broken"   // there is none either, and the configuration cannot do without it
)

// File is a certificate, or a file of authorities or revocation lists.
type File struct {
	Name     string // within the set
	Use      string // "crt", "ca-file" and so on
	Unit     certs.Certificate
	State    State
	Reason   string // why it is not current; empty if it is
	original string // its own content, with that of its key
}

// Path is where the original is: an absolute path, or a name within the template directory.
func (f File) Path() string {
	if abs, ok := haproxy.OutsidePath(f.Name); ok {
		return abs
	}
	return f.Name
}

// Set is a complete set of files.
type Set struct {
	Files haproxy.Files
	// Certificates are sorted by name.
	Certificates []File
	droppable    map[string]bool // those that a directory or a crt-list names
}

// Keeper remembers what costs time to find out again, and what HAProxy has refused. One goroutine uses it.
type Keeper struct {
	outside Outside // nil: names outside of the set stay as they are
	refused map[string]verdict
	parsed  map[string]parsed
	texts   map[string]haproxy.Text // copies
	listed  []string                // paths that crt-lists name
	last    *last
	// followed are the paths that Complete asked for last, and beside those that Look did.
	followed, beside []string
}

type verdict struct{ content, reason string }

type parsed struct {
	content string
	unit    certs.Unit
	err     error
}

// New returns a Keeper; outside may be nil.
func New(outside Outside) *Keeper {
	return &Keeper{outside: outside, refused: map[string]verdict{}, parsed: map[string]parsed{}, texts: map[string]haproxy.Text{}}
}

// Complete makes a set complete. lastGood is what HAProxy is known to run.
func (k *Keeper) Complete(files, lastGood haproxy.Files) Set {
	c := completion{Keeper: k, files: files, good: lastGood, texts: map[string]haproxy.Text{}, problems: map[string]string{}, judged: map[string]bool{}, droppable: map[string]bool{}}
	config := files.Text(haproxy.ConfigFile)
	uses := config.SSLFiles()
	if len(uses) == 0 {
		k.follow(nil)
		return Set{Files: files}
	}
	if set, ok := k.reuse(files, lastGood, uses); ok {
		return set
	}
	named := uses
	for _, name := range files.Names() {
		c.texts[name] = files.Text(name)
	}
	if k.outside != nil {
		inside, outside := config.Inside()
		c.texts[haproxy.ConfigFile] = inside
		c.copyOutside(outside)
		uses = inside.SSLFiles()
	}
	for _, use := range uses {
		c.use(use)
	}
	made, err := haproxy.FilesOf(c.texts)
	if err != nil { // a path that no file can have: HAProxy says what it thinks of the original
		return Set{Files: files}
	}
	k.forget(c.texts)
	slices.SortFunc(c.found, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	set := Set{Files: made, Certificates: c.found, droppable: c.droppable}
	k.last = &last{rendered: files, uses: named, read: c.read, set: set, judged: c.judged}
	return set
}

// Look is Complete for a set that is only shown: what the last Complete has asked for is followed on.
func (k *Keeper) Look(files, lastGood haproxy.Files) Set {
	look := *k
	look.beside = k.followed
	set := look.Complete(files, lastGood)
	k.beside = look.followed
	return set
}

// LookAway ends what Look has begun to follow.
func (k *Keeper) LookAway() { k.beside = nil }

// follow reads paths, and those that the crt-lists among them name.
func (k *Keeper) follow(paths []string) map[string]watch.Outside {
	if k.outside == nil {
		return nil
	}
	k.followed = sortedSet(paths)
	all := k.outside.Read(sortedSet(slices.Concat(k.followed, k.beside)))
	found := make(map[string]watch.Outside, len(k.followed))
	for _, p := range k.followed {
		found[p] = all[p]
	}
	return found
}

func sortedSet(paths []string) []string {
	slices.Sort(paths)
	return slices.Compact(paths)
}

// text returns a Text for a copy, the same one for as long as the content is the same.
func (k *Keeper) text(name, content string) haproxy.Text {
	if t, known := k.texts[name]; known && t.Size() == len(content) && t.String() == content {
		return t
	}
	t := haproxy.NewText(content)
	k.texts[name] = t
	return t
}

// parse reads a unit, once for each content.
func (k *Keeper) parse(name, content string) (certs.Unit, error) {
	if p, known := k.parsed[name]; known && p.content == content {
		return p.unit, p.err
	}
	u, err := certs.Parse(content)
	k.parsed[name] = parsed{content, u, err}
	return u, err
}

// forget drops what is kept of files that a set does not have any more.
func (k *Keeper) forget(texts map[string]haproxy.Text) {
	gone := func(name string) bool { _, there := texts[name]; return !there }
	if len(k.parsed) > 2*len(texts)+100 {
		maps.DeleteFunc(k.parsed, func(name string, _ parsed) bool { return gone(name) })
	}
	if len(k.texts) > 2*len(texts)+100 {
		maps.DeleteFunc(k.texts, func(name string, _ haproxy.Text) bool { return gone(name) })
	}
}

// Refuse notes the certificates of a set that HAProxy has rejected with this output, and reports whether Complete can now do
// without them.
func (k *Keeper) Refuse(set Set, lastGood haproxy.Files, output string) bool {
	again := false
	for _, f := range set.Certificates {
		if f.State != Current || !strings.Contains(output, "'"+f.Name) {
			continue
		}
		good := lastGood.Has(f.Name) && unitOf(lastGood, f.Name) != f.original
		if good || set.droppable[f.Name] {
			k.last = nil
			k.refused[f.Name] = verdict{f.original, "HAProxy does not take it: " + lineWith(output, f.Name)}
			again = true
		}
	}
	return again
}

func lineWith(output, name string) string {
	for line := range strings.Lines(output) {
		if strings.Contains(line, name) {
			return strings.TrimPrefix(strings.TrimSpace(line), "[ALERT] ")
		}
	}
	return ""
}

// unitOf is the text of a certificate with the key beside it.
func unitOf(files haproxy.Files, name string) string {
	text := files.Text(name).String()
	if key := files.Text(name + ".key"); key.Size() > 0 {
		text += "\n" + key.String()
	}
	return text
}

// expired reports whether a certificate is of no use any more.
func expired(c certs.Certificate) bool { return time.Now().After(c.NotAfter) }

var companions = []string{".key", ".ocsp", ".issuer", ".sctl"}

// names of a map, in order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func below(dir, name string) bool { return path.Dir(name) == dir }
