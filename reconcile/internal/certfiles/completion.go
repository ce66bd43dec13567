package certfiles

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
	"nuncio/watch"
)

// completion is one set in the making.
type completion struct {
	*Keeper
	files, good haproxy.Files
	texts       map[string]haproxy.Text
	problems    map[string]string // with the originals, by name within the set
	judged      map[string]bool
	droppable   map[string]bool
	read        map[string]watch.Outside
	found       []File
}

// copyOutside adds copies of everything that the configuration names outside of the set.
func (c *completion) copyOutside(named []haproxy.SSLFile) {
	var paths []string
	for _, f := range named {
		paths = append(paths, path.Clean(f.Name))
	}
	rendered := maps.Clone(c.texts)
	for range 2 { // the second time with what the lists name
		c.texts, c.problems = maps.Clone(rendered), map[string]string{} // without copies of what the lists named the last time
		c.read = c.follow(append(slices.Clone(paths), c.listed...))
		for _, p := range sorted(c.read) {
			c.copy(p, c.read[p])
		}
		listed := c.lists(named)
		if slices.Equal(listed, c.listed) {
			return
		}
		c.listed = listed
	}
}

// lists rewrites the crt-lists and returns the paths that they name.
func (c *completion) lists(named []haproxy.SSLFile) (paths []string) {
	lists := map[string]string{} // by name within the set
	for _, f := range c.files.Text(haproxy.ConfigFile).SSLFiles() {
		if f.Keyword == "crt-list" && c.files.Has(f.Name) {
			lists[f.Name] = c.files.Text(f.Name).String()
		}
	}
	for _, f := range named {
		if name := haproxy.OutsideName(f.Name); f.Keyword == "crt-list" {
			if text, there := c.texts[name]; there {
				lists[name] = text.String()
			}
		}
	}
	for _, name := range sorted(lists) {
		c.judged[name] = true
		inside, more := haproxy.InsideList(lists[name], nil)
		c.texts[name] = c.text(name, inside)
		paths = append(paths, more...)
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// copy adds what one path holds, or what it held when HAProxy took it last.
func (c *completion) copy(p string, o watch.Outside) {
	name := haproxy.OutsideName(p)
	if o.Err != nil {
		c.problems[name] = o.Err.Error()
	}
	served := 0
	for file, content := range o.Files {
		c.texts[haproxy.OutsideName(file)] = c.text(haproxy.OutsideName(file), content)
		if !isCompanion(file) {
			served++
		}
	}
	if served > 0 {
		return
	}
	if o.Err == nil && o.IsDir {
		c.problems[name] = p + " holds no certificate any more"
	}
	for _, had := range c.good.Names() {
		if had == name || below(name, had) || slices.Contains(companions, strings.TrimPrefix(had, name)) {
			c.texts[had] = c.good.Text(had)
		}
	}
}

func isCompanion(name string) bool { return slices.Contains(companions, path.Ext(name)) }

// use judges the files that one word of the configuration names.
func (c *completion) use(f haproxy.SSLFile) {
	name := path.Clean(f.Name)
	switch {
	case f.Line == "load" || path.IsAbs(name):
		return // key and certificate are two words, or it is not of this set
	case f.Keyword == "crt-list":
		c.list(name)
	case f.Keyword == "crt" && !c.has(name):
		c.directory(name)
		c.missing(name)
	case f.Keyword == "crt":
		c.certificate(name, false)
	case strings.HasPrefix(f.Keyword, "ca-"), f.Keyword == "crl-file":
		c.authority(f.Keyword, name)
	}
}

// special reports whether an entry of a crt-list is no file: a certificate of a crt-store, or a bundle, whose files have
// endings.
func (c *completion) special(name string) bool {
	return strings.HasPrefix(name, "@") || !c.has(name) && (c.has(name+".rsa") || c.has(name+".ecdsa") || c.has(name+".dsa"))
}

func (c *completion) has(name string) bool {
	_, there := c.texts[name]
	return there
}

func (c *completion) directory(dir string) {
	for _, name := range sorted(c.texts) {
		if below(dir, name) && !isCompanion(name) && !strings.HasPrefix(path.Base(name), ".") {
			c.certificate(name, true)
		}
	}
}

// missing reports a name that leads to nothing.
func (c *completion) missing(name string) {
	if c.judged[name] || c.holds(name) || c.special(name) {
		return
	}
	reason := c.problems[name]
	_, outside := haproxy.OutsidePath(name)
	switch {
	case reason != "":
	case outside, haproxy.HasSSLBase(c.files.Text(haproxy.ConfigFile).String()):
		return
	default:
		reason = "the template directory has no file or directory of that name, and a path outside of it begins with /"
	}
	c.judged[name] = true
	c.found = append(c.found, File{Name: name, Use: "crt", State: Broken, Reason: reason})
}

// holds reports whether a directory has files in the set.
func (c *completion) holds(dir string) bool {
	for name := range c.texts {
		if below(dir, name) {
			return true
		}
	}
	return false
}

// list judges the entries of a crt-list, and takes out those that cannot be served.
func (c *completion) list(list string) {
	if !c.has(list) {
		return
	}
	text := c.texts[list].String()
	for _, e := range haproxy.ListEntries(text) {
		if !c.special(e.File) {
			c.certificate(path.Clean(e.File), true)
		}
	}
	kept, _ := haproxy.InsideList(text, func(name string) bool { return c.special(name) || c.has(path.Clean(name)) })
	c.texts[list] = c.text(list, kept)
}

// certificate decides which content of a certificate is used.
func (c *completion) certificate(name string, droppable bool) {
	if c.judged[name] {
		return
	}
	c.judged[name] = true
	original := c.unit(name)
	u, err := c.parse(name, original)
	if errors.Is(err, certs.ErrUnsure) {
		u.Certificate, _ = certs.Leaf(original)
		err = nil
	}
	if v := c.refused[name]; err == nil && v.content == original && v.reason != "" {
		err = errors.New(v.reason)
	}
	f := File{Name: name, Use: "crt", Unit: u.Certificate, State: Current, original: original}
	var good certs.Certificate
	same, hasGood := c.good.Has(name) && unitOf(c.good, name) == original, false
	if !same && (err != nil || expired(u.Certificate)) {
		if good, hasGood = c.lastGood(name); err == nil && hasGood && good.NotAfter.After(u.NotAfter) {
			err = fmt.Errorf("it has expired on %s", u.NotAfter.UTC().Format("2006-01-02 15:04"))
		}
	}
	switch {
	case same:
		// HAProxy serves it, whatever this package thinks of it.
		f.Reason = c.problem(name)
		if f.Unit.NotAfter.IsZero() {
			f.Unit, _ = certs.Leaf(original)
		}
		if f.Reason != "" {
			f.State = Kept
		}
	case err == nil:
	case hasGood:
		f.State, f.Reason, f.Unit = Kept, err.Error(), good
		c.restore(name)
	case droppable:
		f.State, f.Reason = LeftOut, err.Error()
		delete(c.texts, name)
		delete(c.texts, name+".key")
	default:
		f.State, f.Reason = Broken, err.Error()
	}
	if problem := c.problem(name); problem != "" && f.State == LeftOut {
		f.Reason = problem
	}
	if droppable {
		c.droppable[name] = true
	}
	c.found = append(c.found, f)
}

// problem says what is wrong with the original of a copy, or with its directory.
func (c *completion) problem(name string) string {
	if text := c.problems[name]; text != "" {
		return text
	}
	return c.problems[path.Dir(name)]
}

func (c *completion) unit(name string) string {
	text := c.texts[name].String()
	if key := c.texts[name+".key"]; key.Size() > 0 {
		text += "\n" + key.String()
	}
	return text
}

// lastGood returns the certificate of that name that HAProxy has run.
func (c *completion) lastGood(name string) (certs.Certificate, bool) {
	if !c.good.Has(name) {
		return certs.Certificate{}, false
	}
	good, ok := certs.Leaf(c.good.Text(name).String())
	return good, ok
}

// restore puts the last good content back.
func (c *completion) restore(name string) {
	c.texts[name] = c.good.Text(name)
	delete(c.texts, name+".key")
	if key := name + ".key"; c.good.Has(key) {
		c.texts[key] = c.good.Text(key)
	}
}

// authority decides which content of a file without keys is used.
func (c *completion) authority(use, name string) {
	if c.judged[name] || !c.has(name) {
		return // a directory, or one of HAProxy's own names such as @system-ca
	}
	c.judged[name] = true
	text := c.texts[name].String()
	var err error
	f := File{Name: name, Use: use, State: Current, original: c.unit(name)}
	if use == "crl-file" {
		err = certs.Revocations(text)
	} else {
		var all []certs.Certificate
		if all, err = certs.Authorities(text); len(all) > 0 {
			f.Unit = soonest(all)
		}
	}
	if errors.Is(err, certs.ErrUnsure) {
		err = nil
	}
	if v := c.refused[name]; err == nil && v.reason != "" && v.content == f.original {
		err = errors.New(v.reason)
	}
	same := c.good.Has(name) && c.good.Text(name).Equal(c.texts[name])
	switch problem := c.problem(name); {
	case same && problem != "":
		f.State, f.Reason = Kept, problem
	case same || err == nil:
	case c.good.Has(name):
		f.State, f.Reason = Kept, err.Error()
		c.restore(name)
		f.Unit, _ = certs.Leaf(c.texts[name].String())
	default:
		f.State, f.Reason = Broken, err.Error()
	}
	c.found = append(c.found, f)
}

// soonest returns the authority that expires first.
func soonest(all []certs.Certificate) certs.Certificate {
	return slices.MinFunc(all, func(a, b certs.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}
