package plan

import (
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// PlanPart is for newer files that need a reload which has to wait. It plans for the sections that differ in nothing but
// their server lines and that commands can bring up to date; all else, the other files too, stays as it runs. It returns
// the files that run once the plan is carried out, or no plan when there is nothing to do.
func (p Planner) PlanPart(old *Model, now, next haproxy.Files, leaving map[string]Leaving) (*Plan, haproxy.Files) {
	text := next.Text(haproxy.ConfigFile)
	model := &Model{text: old.text, sections: slices.Clone(old.sections)}
	d := &builder{Planner: p, Plan: Plan{Next: model, Phases: make([][]haproxy.Command, 3)}, old: old, leaving: leaving}
	waiting := differentFiles(now, next)
	var mixed []haproxy.Text // what runs, with the new text of the sections that change
	at, taken := 0, 0        // in the text that runs: the place, and how far mixed has it
	found := old.serversAlone(text)
	for i, s := range old.sections {
		if f, ok := found[i]; ok && !mentions(f.text, waiting) && d.try(i, f.section) {
			mixed = append(mixed, old.text.Part(taken, at), text.Part(f.at, f.at+len(f.text)))
			taken = at + len(s.text)
		}
		at += len(s.text)
	}
	if d.Servers == 0 || d.finish() != "" { // comments can wait too
		return nil, haproxy.Files{}
	}
	model.text = haproxy.Join(append(mixed, old.text.Part(taken, at))...)
	texts := map[string]haproxy.Text{}
	for _, name := range now.Names() {
		texts[name] = now.Text(name)
	}
	texts[haproxy.ConfigFile] = model.text
	files, err := haproxy.FilesOf(texts)
	if err != nil {
		return nil, haproxy.Files{}
	}
	return &d.Plan, files
}

// try plans for one section, or leaves it as it was.
func (d *builder) try(i int, s *section) bool {
	before := d.Plan
	before.Phases = slices.Clone(d.Phases)
	deletes := d.deletes
	d.Next.sections[i] = s
	if d.change(Pair{i, i}) == "" {
		return true
	}
	d.Plan, d.deletes = before, deletes
	d.Next.sections[i] = d.old.sections[i]
	return false
}

// placed is a section of a newer text, and where it begins there.
type placed struct {
	*section
	at int
}

// serversAlone returns, by their index in m, the proxies that a newer text has too, with the same lines but for those of
// servers.
func (m *Model) serversAlone(text haproxy.Text) map[int]placed {
	first, last, begin, end := m.between(text)
	if m.blocked != "" || !strings.HasSuffix(text.Slice(max(0, end-1), end), "\n") {
		return nil
	}
	byTitle := map[string]int{}
	for i := first; i < last; i++ {
		if s := m.sections[i]; s.hasServers() {
			byTitle[title(s)] = i
		}
	}
	found := map[int]placed{}
	rest := text.Slice(begin, end)
	for i := first; rest != ""; {
		if i < last && startsWith(rest, m.sections[i]) {
			rest = rest[len(m.sections[i].text):]
			i++
			continue
		}
		n := nextSection(rest)
		s, err := newSection(strings.Clone(rest[:n]))
		if err != nil || s.blocked != "" { // with a condition, which lines count cannot be told
			return nil
		}
		if j, ok := byTitle[title(s)]; ok {
			old := m.sections[j]
			if s.kind == old.kind && s.from == old.from && s.structure == old.structure && s.text != old.text {
				found[j] = placed{s, end - len(rest)}
			}
			i = j + 1
		}
		rest = rest[n:]
	}
	return found
}

// differentFiles names the files beside the configuration that are not the same in both sets.
func differentFiles(now, next haproxy.Files) (names []string) {
	for _, name := range slices.Concat(now.Names(), next.Names()) {
		if name != haproxy.ConfigFile && !now.Text(name).Equal(next.Text(name)) {
			names = append(names, name)
		}
	}
	return names
}

func mentions(text string, names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return strings.Contains(text, name) })
}
