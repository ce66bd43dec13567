package plan

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"nuncio/internal/certs"
	"nuncio/internal/haproxy"
)

// CertificateChange is a certificate, or a file of authorities or revocations, that is replaced, comes or goes.
type CertificateChange struct {
	Kind    string              // "cert", "ca-file" or "crl-file"
	Name    string              // as HAProxy knows it
	New     bool                // HAProxy does not have it yet
	Gone    bool                // HAProxy is to forget it
	Joins   []ListChange        // the crt-lists that it comes into, after its content is set
	Leaves  []ListChange        // the crt-lists that it goes out of
	Payload []string            // the new content, line by line; none if it stays
	Shown   []certs.Certificate // what HAProxy has to show afterwards, first things first
}

// ListChange is a crt-list, which may be a directory, and the line for the certificate in it.
type ListChange struct {
	List string
	Line string // empty for a directory, where there are no options
}

// Commands is how many commands the change takes.
func (c CertificateChange) Commands() int {
	n := len(c.Joins) + len(c.Leaves)
	for _, more := range []bool{c.New, c.Gone, len(c.Payload) > 0, len(c.Payload) > 0} {
		if more {
			n++
		}
	}
	return n
}

// maxPayload bounds the content that one command carries, in bytes. Until 3.4, whose limit is 128 KiB unless
// tune.cli.max-payload-size changes it, a command with its payload has to fit into a buffer of 16 KiB.
func (p Planner) maxPayload() int {
	if p.Version.AtLeast(3, 4) {
		return 100_000
	}
	return haproxy.MaxCommand - 1000
}

// sslUses is how a configuration uses the certificates of its set.
type sslUses struct {
	files       haproxy.Files
	direct      map[string]bool
	authorities map[string]string       // "ca-file" or "crl-file" by name; another keyword if a command cannot replace it
	lists       map[string][]listMember // by name of the crt-list or directory, in HAProxy's order
	isList      map[string]bool         // that is a file
	odd         []string                // names whose spelling HAProxy would keep and a command would have to match
}

// listMember is a certificate in a crt-list.
type listMember struct {
	file, line string
	names      []string // filters
}

func usesOf(files haproxy.Files) *sslUses {
	u := &sslUses{
		files: files, direct: map[string]bool{}, authorities: map[string]string{}, lists: map[string][]listMember{}, isList: map[string]bool{},
	}
	for _, f := range files.Text(haproxy.ConfigFile).SSLFiles() {
		name := strings.TrimSuffix(f.Name, "/") // HAProxy drops it too
		switch {
		case path.IsAbs(name) || strings.HasPrefix(name, "@"):
			continue // not of this set
		case name != path.Clean(name):
			u.odd = append(u.odd, name)
		}
		switch f.Keyword {
		case "crt":
			if files.Has(name) {
				u.direct[name] = true
			} else {
				u.lists[name] = u.directory(name)
			}
		case "crt-list":
			u.isList[name] = true
			u.lists[name] = nil
			for _, e := range haproxy.ListEntries(files.Text(name).String()) {
				u.lists[name] = append(u.lists[name], listMember{e.File, e.Line, e.Names})
			}
		default:
			if had, there := u.authorities[name]; there && had != f.Keyword {
				f.Keyword = "several"
			}
			u.authorities[name] = f.Keyword
		}
	}
	return u
}

// directory lists what HAProxy loads from a directory, in its order.
func (u *sslUses) directory(dir string) (members []listMember) {
	for _, name := range u.files.Names() {
		if path.Dir(name) == dir && !strings.HasPrefix(path.Base(name), ".") && !isCompanion(name) {
			members = append(members, listMember{file: name})
		}
	}
	return members
}

// isCompanion reports whether HAProxy reads a file only together with the certificate of the name before the ending.
func isCompanion(name string) bool {
	return slices.Contains([]string{".key", ".ocsp", ".issuer", ".sctl"}, path.Ext(name))
}

// unit is the text of a certificate with its key.
func (u *sslUses) unit(name string) string {
	text := u.files.Text(name).String()
	if key := u.files.Text(name + ".key"); key.Size() > 0 {
		text += "\n" + key.String()
	}
	return text
}

// memberships returns the lists that a certificate is in.
func (u *sslUses) memberships(name string) (in []ListChange) {
	for _, list := range slices.Sorted(maps.Keys(u.lists)) {
		for _, m := range u.lists[list] {
			if m.file == name {
				in = append(in, ListChange{list, m.line})
			}
		}
	}
	return in
}

// uses reports whether the configuration serves a certificate.
func (u *sslUses) uses(name string) bool {
	return u.files.Has(name) && (u.direct[name] || len(u.memberships(name)) > 0)
}

// diffCertificates plans for the files that HAProxy has loaded as certificates, and returns those: the others are not its
// business. Whatever it cannot do without changing which certificate a client gets needs a reload.
func (d *builder) diffCertificates(now, next haproxy.Files) (taken map[string]bool, reason string) {
	changed := differing(now, next)
	if len(changed) == 0 {
		return nil, ""
	}
	taken = map[string]bool{}
	before, after := usesOf(now), usesOf(next)
	units := map[string]bool{}
	for _, name := range changed {
		base := name
		if ext := path.Ext(name); isCompanion(name) {
			base = strings.TrimSuffix(name, ext)
			if ext != ".key" && (before.uses(base) || after.uses(base)) {
				return nil, fmt.Sprintf("file %s of a certificate has changed", name)
			}
		}
		switch kind := after.authorities[name]; {
		case before.uses(base) || after.uses(base):
			units[base], taken[name] = true, true
		case after.isList[name] && now.Has(name) && next.Has(name):
			taken[name] = true
			for _, m := range append(slices.Clone(before.lists[name]), after.lists[name]...) {
				units[m.file] = true
			}
		case (kind == "ca-file" || kind == "crl-file") && now.Has(name) && next.Has(name):
			taken[name] = true
			if reason := d.authority(kind, name, next.Text(name).String()); reason != "" {
				return nil, reason
			}
		}
	}
	if len(taken) > 0 && len(before.odd)+len(after.odd) > 0 {
		return nil, fmt.Sprintf("the name %s of a certificate is not spelt in the shortest way", append(before.odd, after.odd...)[0])
	}
	if reason := listOrder(before, after); len(units) > 0 && reason != "" {
		return nil, reason
	}
	for _, name := range slices.Sorted(maps.Keys(units)) {
		if reason := d.certificate(before, after, name); reason != "" {
			return nil, fmt.Sprintf("certificate %s: %s", name, reason)
		}
	}
	return taken, ""
}

// differing names the files beside the configuration that are not the same.
func differing(now, next haproxy.Files) (names []string) {
	for _, name := range next.Names() {
		if name != haproxy.ConfigFile && (!now.Has(name) || !now.Text(name).Equal(next.Text(name))) {
			names = append(names, name)
		}
	}
	for _, name := range now.Names() {
		if !next.Has(name) {
			names = append(names, name)
		}
	}
	return names
}

// listOrder returns why the crt-lists need a reload: the first certificate of a list is what a client gets whose name no
// certificate is for, and a command cannot change that.
func listOrder(before, after *sslUses) string {
	for list, members := range after.lists {
		old := before.lists[list]
		switch {
		case len(old) == 0 || len(members) == 0:
			return fmt.Sprintf("crt-list %s has or had no certificate", list)
		case old[0].file != members[0].file || old[0].line != members[0].line:
			return fmt.Sprintf("the first certificate of %s, its default, is another one", list)
		}
		seen := map[string]bool{}
		for _, m := range members {
			if seen[m.file] {
				return fmt.Sprintf("crt-list %s names %s twice", list, m.file)
			}
			seen[m.file] = true
		}
	}
	return ""
}

func (d *builder) authority(kind, name, text string) string {
	c := CertificateChange{Kind: kind, Name: name, Payload: certs.Lines(text)}
	if kind == "ca-file" {
		var err error
		if c.Shown, err = certs.Authorities(text); err != nil {
			return fmt.Sprintf("file %s: %v", name, err)
		}
	} else if err := certs.Revocations(text); err != nil {
		return fmt.Sprintf("file %s: %v", name, err)
	}
	return d.takeCertificate(c)
}

// certificate plans for one certificate that may have changed, come or gone, in itself or in a crt-list.
func (d *builder) certificate(before, after *sslUses, name string) string {
	was, is := before.uses(name), after.uses(name)
	c := CertificateChange{Kind: "cert", Name: name, New: is && !was, Gone: was && !is}
	if (c.New || c.Gone) && (before.direct[name] || after.direct[name]) {
		return "it comes or goes, and a line names it"
	}
	old, in := before.memberships(name), after.memberships(name)
	if !is {
		in = nil
	}
	for _, m := range in {
		if i := slices.IndexFunc(old, func(o ListChange) bool { return o.List == m.List }); i < 0 || !was {
			c.Joins = append(c.Joins, m)
		} else if old[i].Line != m.Line {
			return "the options of its line in a crt-list have changed"
		}
	}
	for _, o := range old {
		if was && !slices.ContainsFunc(in, func(m ListChange) bool { return m.List == o.List }) {
			c.Leaves = append(c.Leaves, o)
		}
	}
	if is && (!was || before.unit(name) != after.unit(name)) {
		u, err := certs.Parse(after.unit(name))
		if err != nil {
			return err.Error()
		}
		c.Payload, c.Shown = u.PEM(), []certs.Certificate{u.Certificate}
	}
	if len(c.Payload) > 0 || len(c.Joins) > 0 {
		if other := after.rival(name); other != "" {
			return fmt.Sprintf("%s is for the same name, and a command would change which of them is served", other)
		}
	}
	if c.Commands() == 0 {
		return ""
	}
	return d.takeCertificate(c)
}

func (d *builder) takeCertificate(c CertificateChange) string {
	size := 0
	for _, line := range c.Payload {
		size += len(line) + 1
	}
	if size > d.maxPayload() {
		return fmt.Sprintf("%s has %d bytes, too many for a command", c.Name, size)
	}
	if _, err := haproxy.EscapeArgument(c.Name); err != nil {
		return err.Error()
	}
	d.Certificates = append(d.Certificates, c)
	d.Commands += c.Commands()
	return ""
}

// rival returns another certificate in a list of a certificate that is for one of its names with the same kind of key. HAProxy
// takes the first that it loaded, and a certificate that commands have replaced counts as loaded last.
func (u *sslUses) rival(name string) string {
	mine, known := certs.Leaf(u.files.Text(name).String())
	if !known {
		return ""
	}
	for _, in := range u.memberships(name) {
		members := u.lists[in.List]
		own := members[slices.IndexFunc(members, func(m listMember) bool { return m.file == name })]
		names := map[string]bool{}
		for _, n := range own.servedNames(mine) {
			names[n] = true
		}
		for _, m := range members {
			other, ok := certs.Leaf(u.files.Text(m.file).String())
			if m.file == name || !ok || other.KeyType != mine.KeyType {
				continue
			}
			if slices.ContainsFunc(m.servedNames(other), func(n string) bool { return names[n] }) {
				return m.file
			}
		}
	}
	return ""
}

// servedNames returns the names, in lower case, for which a client gets the certificate.
func (m listMember) servedNames(c certs.Certificate) (names []string) {
	from := c.Names
	if len(m.names) > 0 {
		from = m.names
	}
	for _, n := range from {
		if !strings.HasPrefix(n, "!") {
			names = append(names, strings.ToLower(n))
		}
	}
	return names
}
