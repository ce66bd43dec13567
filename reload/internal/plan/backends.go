package plan

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// HAProxy 3.4 takes whole backends at run time: all of their settings come from a defaults section that has a name, which it
// keeps for that. Only servers are added to them by commands. A backend can be deleted when it is not published, has no server
// and no stream, and nothing in the configuration names it.

// anyBackend stands for a name that cannot be told.
const anyBackend = "*"

// backendFetch finds the functions whose arguments name backends, or the stick tables of backends.
var backendFetch = regexp.MustCompile(`^(nbsrv|connslots|queue|avg_queue|in_table|(be|table|sc|sc0|sc1|sc2|src)_[a-z0-9_]+)$`)

// addBackend notes that a line names a backend: the first of words. A log format names none: what it finds at run time it may
// also not find.
func (s *section) addBackend(words []haproxy.Word) {
	switch {
	case len(words) == 0:
	case words[0].Expanded:
		s.backends = append(s.backends, anyBackend)
	case !strings.Contains(words[0].Text, "%["):
		s.backends = append(s.backends, words[0].Text)
	}
}

// addFetched notes the arguments of a function, which follow its parenthesis.
func (s *section) addFetched(arguments string) {
	arguments, _, _ = strings.Cut(arguments, ")")
	for name := range strings.SplitSeq(arguments, ",") {
		name, _, _ = strings.Cut(strings.TrimSpace(name), "/")
		if name != "" {
			s.backends = append(s.backends, name)
		}
	}
}

// names reports whether a line of the section names a backend.
func (s *section) names(backend string) bool {
	return slices.Contains(s.backends, backend) || slices.Contains(s.backends, anyBackend) ||
		slices.ContainsFunc(s.references, func(target string) bool { return strings.HasPrefix(target, backend+"/") })
}

// staticBackend returns why commands can neither add section i nor remove it; empty if they can.
func (p Planner) staticBackend(m *Model, i int) string {
	s := m.sections[i]
	switch {
	case s.kind != "backend":
		return "HAProxy can add and remove nothing but backends without a reload"
	case !p.Version.AtLeast(3, 4):
		return "HAProxy can add and remove backends without a reload from version 3.4 on"
	case haproxy.CheckName(s.name) != nil:
		return "the section has no proper name"
	case s.from == "":
		return `it says "from" no defaults section, which would have its settings`
	case s.structure != "backend\n"+s.name+"\nfrom\n"+s.from+"\n\n":
		return fmt.Sprintf("it has lines other than servers; they would have to stand in its defaults section %q", s.from)
	}
	return cmp.Or(m.staticProfile(i), m.named(i))
}

// staticProfile returns why the defaults section of section i cannot be the one of a command.
func (m *Model) staticProfile(i int) string {
	from, found := m.sections[i].from, 0
	for _, d := range m.sections {
		switch {
		case d.kind == "defaults" && d.name == from:
			found++
		case d.kind == "global" && strings.Contains(d.structure, "\ntune.defaults.purge\n"):
			return "tune.defaults.purge makes HAProxy forget defaults sections"
		}
	}
	if found != 1 {
		return fmt.Sprintf("there are %d defaults sections %q", found, from)
	}
	if mode := m.mode(i); mode != "http" && mode != "tcp" {
		return fmt.Sprintf("its mode is %q", mode)
	}
	for _, d := range m.defaultsChain(i) {
		for _, line := range []string{"option\ntransparent\n", "dynamic-cookie-key\n"} {
			if strings.Contains(d.structure, line) {
				return fmt.Sprintf("its defaults section has a line %q", strings.ReplaceAll(strings.TrimSpace(line), "\n", " "))
			}
		}
		if strings.HasPrefix(d.dynamicBlocked, "the section has dynamic cookies") {
			return d.dynamicBlocked
		}
	}
	return ""
}

// mode returns the mode of section i; HAProxy's own default is tcp.
func (m *Model) mode(i int) string { return cmp.Or(m.setting(i, "mode"), "tcp") }

// named returns which section names the backend that is section i, or has the same name; empty if none does.
func (m *Model) named(i int) string {
	name := m.sections[i].name
	for j, s := range m.sections {
		switch {
		case s.names(name) && j != i:
			return fmt.Sprintf("section %q refers to it", title(s))
		case j != i && s.name == name && (s.hasServers() || s.kind == "frontend"):
			return fmt.Sprintf("section %q has the same name", title(s))
		}
	}
	return ""
}

// comes plans for a section that is new.
func (d *builder) comes(i int) string {
	if reason := d.staticBackend(d.Next, i); reason != "" {
		return reason
	}
	servers, err := d.Next.servers(i, d.Keywords)
	if err != nil {
		return err.Error()
	}
	d.enter(d.Next, i)
	d.size, d.backups, d.cookies = len(servers), 0, nil // in an empty backend, servers are added in their order
	from := d.Next.sections[i].from
	l, leaves := d.leaving[d.backend]
	if leaves {
		d.Returned = append(d.Returned, d.backend)
	}
	if leaves && l.from != from {
		d.free(d.backend)
	}
	if !leaves || l.from != from {
		d.answered(add, "add backend %s from %s mode %s", d.backend, from, d.Next.mode(i))
	}
	if reason := d.fill(servers); reason != "" {
		return reason
	}
	d.answered(add, "publish backend %s", d.backend)
	d.Sections, d.Came = append(d.Sections, i), append(d.Came, i)
	return ""
}

// free deletes a leaving backend that has other settings than the new one of its name. HAProxy refuses that while a stream is in
// it, and then a reload has to do.
func (d *builder) free(backend string) {
	d.deletes = true
	var servers []string
	for target, l := range d.leaving {
		if l.Backend == backend && l.Name != "" {
			servers = append(servers, target)
		}
	}
	slices.Sort(servers)
	d.leaving = maps.Clone(d.leaving)
	for _, target := range append(servers, backend) {
		d.put(add, []haproxy.Command{DeleteCommand(target)})
		delete(d.leaving, target)
	}
	d.Returned = append(d.Returned, servers...)
}

// fill adds the servers of a new backend. Their health checks begin once the maps are there that the checks may read.
func (d *builder) fill(servers []*server) string {
	if reason := duplicates(servers); reason != "" {
		return reason
	}
	sent := len(d.Phases[add])
	for _, v := range servers {
		if reason := d.addServer(v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	if len(d.Files) == 0 {
		return ""
	}
	checks := func(c haproxy.Command) bool { return strings.HasPrefix(c.Line, "enable health ") }
	for _, c := range d.Phases[add][sent:] {
		if checks(c) {
			d.put(lower, []haproxy.Command{c})
		}
	}
	d.Phases[add] = append(d.Phases[add][:sent:sent], slices.DeleteFunc(slices.Clone(d.Phases[add][sent:]), checks)...)
	return ""
}

// goes plans for section i of the older model, which the newer one does not have.
func (d *builder) goes(i int) string {
	s := d.old.sections[i]
	if reason := d.staticBackend(d.old, i); reason != "" {
		return reason
	}
	servers, err := d.old.servers(i, d.Keywords)
	if err != nil {
		return err.Error()
	}
	d.enter(d.old, i)
	d.answered(lower, "unpublish backend %s", d.backend)
	for _, v := range servers {
		if reason := d.removeServer(v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason)
		}
	}
	d.Gone = append(d.Gone, s.name)
	d.Left = append(d.Left, Leaving{Backend: s.name, from: s.from})
	return ""
}

func (d *builder) answered(phase int, format string, args ...any) {
	d.put(phase, []haproxy.Command{{Line: fmt.Sprintf(format, args...), Answers: true}})
}

// BackendCommands returns the commands that show whether the backends of a plan came and went.
func (p *Plan) BackendCommands() (commands []haproxy.Command) {
	for _, i := range p.Came {
		commands = append(commands, haproxy.ShowBackend(p.Next.sections[i].name))
	}
	for _, name := range p.Gone {
		commands = append(commands, haproxy.ShowBackend(name))
	}
	return commands
}

// CheckBackends returns an error unless the replies to BackendCommands show what was planned.
func (p *Plan) CheckBackends(replies []haproxy.Reply) error {
	for n, reply := range replies {
		var name string
		if n < len(p.Came) {
			name = p.Next.sections[p.Came[n]].name
		} else {
			name = p.Gone[n-len(p.Came)]
		}
		b, err := haproxy.ParseBackend(reply.Text, name)
		switch {
		case err != nil:
			return err
		case n >= len(p.Came) && b.Published:
			return fmt.Errorf("haproxy still publishes backend %s", name)
		case n < len(p.Came) && (!b.Published || b.Mode != p.Next.mode(p.Came[n])):
			return fmt.Errorf("haproxy shows backend %s as %+v", name, b)
		}
	}
	return nil
}

// FixedBackends calls found for each backend that cannot come or go without a reload, in order.
func (p Planner) FixedBackends(m *Model, found func(name, reason string)) {
	for i, s := range m.sections {
		if s.kind != "backend" {
			continue
		}
		if reason := p.staticBackend(m, i); reason != "" {
			found(s.name, reason)
		}
	}
}
