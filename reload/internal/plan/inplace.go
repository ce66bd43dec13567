package plan

import (
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// changeInPlace plans for a section whose servers stay as they are but for their addresses, weights, limits and states: the
// change that comes most often. It reads only the lines that differ, where a section may have hundreds. It reports false,
// and has planned nothing, where the servers have to be compared with each other.
func (d *builder) changeInPlace(p Pair) (reason string, done bool) {
	before, after := d.old.sections[p.Old], d.Next.sections[p.New]
	if len(after.defaults) > 0 { // what they mean depends on the lines around them
		return "", false
	}
	inherited := d.Next.inherited(p.New)
	var was, now []*server
	old, next := before.text, after.text
	for old != "" || next != "" {
		x, y := firstLine(old), firstLine(next)
		old, next = old[len(x):], next[len(y):]
		if x == y {
			continue
		}
		if !isPlainServer(x) || !isPlainServer(y) {
			return "", false
		}
		v, err := readLine(x, inherited, d.Keywords)
		w, err2 := readLine(y, inherited, d.Keywords)
		if err != nil || err2 != nil || v == nil || w == nil || v.name != w.name || v.identity != w.identity {
			return "", false
		}
		was, now = append(was, v), append(now, w)
	}
	for n, v := range now {
		if reason := d.updateServer(was[n], v); reason != "" {
			return fmt.Sprintf("server %s: %s", v.name, reason), true
		}
	}
	if d.inPlace == nil {
		d.inPlace = map[int][]*server{}
	}
	d.inPlace[p.New] = now
	return "", true
}

// Confirm is Compare for a section of a plan that was carried out. Where the plan has changed servers in place it looks at them
// alone: a section may have hundreds, and what the plan has not touched is compared from time to time.
func (p Planner) Confirm(done *Plan, section int, reply haproxy.Reply, leaving map[string]Leaving) (drift []string, err error) {
	changed, ok := done.inPlace[section]
	if !ok {
		return p.Compare(done.Next, section, reply, leaving)
	}
	backend := done.Next.sections[section].name
	var text strings.Builder
	for line := range strings.Lines(reply.Text) {
		// A line of a server begins with the id and the name of the backend, and the id and the name of the server.
		if words := strings.SplitN(line, " ", 5); len(words) < 5 || words[0] == "#" || slices.ContainsFunc(changed, func(v *server) bool { return v.name == words[3] }) {
			text.WriteString(line)
		}
	}
	shown, err := haproxy.ParseServers(text.String())
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", backend, err)
	}
	for _, v := range changed {
		what := "it is missing"
		if i := slices.IndexFunc(shown, func(f haproxy.ServerState) bool { return f.Name == v.name }); i >= 0 {
			what = v.differs(shown[i])
		}
		if what != "" {
			drift = append(drift, fmt.Sprintf("server %s/%s: %s", backend, v.name, what))
		}
	}
	return drift, nil
}
