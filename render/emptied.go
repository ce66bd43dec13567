package render

import (
	"slices"

	"nuncio/internal/haproxy"
)

// nameEmptied notes in the dropped lines which backends have no server left because of them. A backend that has none for
// another reason is not named.
func nameEmptied(config haproxy.Text, dropped []Dropped) {
	// Only server lines are dropped from a configuration.
	isServer := func(d Dropped) bool { return d.File == haproxy.ConfigFile }
	if !slices.ContainsFunc(dropped, isServer) {
		return
	}
	lines, err := haproxy.Lex([]byte(config.String()), nil)
	if err != nil {
		return // HAProxy will not read it either, and says why
	}
	sections := haproxy.Sections(lines)
	for i := range dropped {
		if !isServer(dropped[i]) {
			continue
		}
		at := -1
		for j, s := range sections {
			if s.Kind != "" && s.Head.Number < dropped[i].Line {
				at = j
			}
		}
		if at >= 0 && !slices.ContainsFunc(sections[at].Lines, servesTraffic) {
			dropped[i].Emptied = sections[at].Name
		}
	}
}

func servesTraffic(l haproxy.Line) bool {
	return l.Keyword() == "server" || l.Keyword() == "server-template"
}

// Emptied returns the names of the backends that have no server left because of dropped lines, sorted.
func Emptied(dropped []Dropped) []string {
	var names []string
	for _, d := range dropped {
		if d.Emptied != "" {
			names = append(names, d.Emptied)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}
