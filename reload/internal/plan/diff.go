package plan

import (
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// Change says how the sections of one text become those of a newer one whose server lines alone differ.
type Change struct {
	Next    *Model
	Changed []int // indexes of sections, in order
}

// Diff compares with a newer text. A reason other than "" says that they differ in more than server lines. Only the
// sections between the first and the last difference are looked at: the others begin and end as before.
func (m *Model) Diff(text haproxy.Text) (c Change, reason string) {
	if m.blocked != "" {
		return Change{}, m.blocked
	}
	if !strings.HasSuffix(text.Slice(max(0, text.Size()-1), text.Size()), "\n") {
		return Change{}, "the text does not end in a newline"
	}
	c.Next = &Model{text: text, sections: slices.Clone(m.sections)}
	first, last, begin, end := m.between(text)
	rest := text.Slice(begin, end)
	for i := first; i < last; i++ {
		old := m.sections[i]
		if strings.HasPrefix(rest, old.text) {
			// Lines may have been added below: then the section is longer now.
			if below := rest[len(old.text):]; below == "" || beginsSection(firstLine(below)) {
				rest = below
				continue
			}
		}
		if rest == "" {
			return Change{}, fmt.Sprintf("section %q is gone", title(old))
		}
		n := nextSection(rest)
		// A copy, because a part of a text keeps all of it in memory, and each section may come from a different text.
		s, err := newSection(strings.Clone(rest[:n]))
		if err != nil {
			return Change{}, err.Error()
		}
		switch {
		case s.kind != old.kind || s.name != old.name || s.from != old.from:
			return Change{}, fmt.Sprintf("section %q is where %q was", title(s), title(old))
		case s.blocked != "":
			return Change{}, s.blocked
		case s.structure != old.structure:
			return Change{}, fmt.Sprintf("section %q differs in more than its servers", title(s))
		}
		c.Next.sections[i] = s
		c.Changed = append(c.Changed, i)
		rest = rest[n:]
	}
	if rest != "" {
		return Change{}, fmt.Sprintf("new section %.80q", strings.TrimSpace(firstLine(rest)))
	}
	return c, ""
}

// between finds the sections of m that may differ in text, from first to the one before last, and where in text they
// would have to be. What is before them and behind them is the same, byte for byte.
func (m *Model) between(text haproxy.Text) (first, last, begin, end int) {
	prefix, suffix := m.text.Common(text)
	// A section ends where the next one begins, so the line that begins it has to be the same too.
	at := 0
	for i, s := range m.sections {
		if i > 0 && at+len(firstLine(s.text)) <= prefix {
			first, begin = i, at
		}
		at += len(s.text)
	}
	last, end = len(m.sections), text.Size()
	for i := last - 1; i > first; i-- {
		size := len(m.sections[i].text)
		from := end - size
		if text.Size()-from > suffix || text.Slice(from-1, from) != "\n" {
			break
		}
		last, end = i, from
	}
	return first, last, begin, end
}

func firstLine(text string) string {
	if i := strings.IndexByte(text, '\n'); i >= 0 {
		return text[:i+1]
	}
	return text
}
