package haproxy

import "slices"

// sectionKeywords are the words that begin a section if they are the first of a line. If a keyword of a future version
// is missing here, its lines count as part of the section before it; two configurations can then only look more
// different than they are.
var sectionKeywords = []string{
	"acme", "backend", "cache", "crt-store", "defaults", "fcgi-app", "frontend", "global", "healthcheck",
	"http-errors", "listen", "log-forward", "log-profile", "mailers", "peers", "program", "resolvers", "ring",
	"traces", "userlist",
}

// IsSection reports whether a line that begins with word begins a section.
func IsSection(word string) bool {
	_, found := slices.BinarySearch(sectionKeywords, word)
	return found
}

// Section is a section of a configuration: its first line and those below it.
type Section struct {
	Kind  string // "backend"; empty for lines above the first section
	Name  string // empty if the section has none
	From  string // the defaults section that it names with "from", if any
	Head  Line   // zero for lines above the first section
	Lines []Line // the lines below Head
}

// Sections groups lines into sections, in order.
func Sections(lines []Line) []Section {
	var sections []Section
	for i, l := range lines {
		if !IsSection(l.Keyword()) {
			if len(sections) == 0 {
				sections = append(sections, Section{Lines: lines[:0]})
			}
			s := &sections[len(sections)-1]
			s.Lines = lines[i-len(s.Lines) : i+1 : i+1]
			continue
		}
		s := Section{Kind: l.Keyword(), Head: l}
		rest := l.Words[1:]
		if len(rest) > 0 && (rest[0].Text != "from" || s.Kind != "defaults") {
			s.Name, rest = rest[0].Text, rest[1:]
		}
		if len(rest) > 1 && rest[0].Text == "from" {
			s.From = rest[1].Text
		}
		sections = append(sections, s)
	}
	return sections
}
