package plan

import (
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// Diff returns the model of a newer text and the indexes of the sections that differ, in order. A reason other than "" says
// that the texts differ in more than server lines. Only the sections between the first and the last difference are looked at:
// the others begin and end as before.
func (m *Model) Diff(text haproxy.Text) (next *Model, changed []int, reason string) {
	if m.blocked != "" {
		return nil, nil, m.blocked
	}
	if !strings.HasSuffix(text.Slice(max(0, text.Size()-1), text.Size()), "\n") {
		return nil, nil, "the text does not end in a newline"
	}
	next = &Model{text: text, sections: slices.Clone(m.sections)}
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
			return nil, nil, fmt.Sprintf("section %q is gone", title(old))
		}
		n := nextSection(rest)
		// A copy, because a part of a text keeps all of it in memory, and each section may come from a different text.
		s, err := newSection(strings.Clone(rest[:n]))
		if err != nil {
			return nil, nil, err.Error()
		}
		switch {
		case s.kind != old.kind || s.name != old.name || s.from != old.from:
			return nil, nil, fmt.Sprintf("section %q is where %q was", title(s), title(old))
		case s.blocked != "":
			return nil, nil, s.blocked
		case s.structure != old.structure:
			return nil, nil, fmt.Sprintf("section %q differs in more than its servers", title(s))
		}
		next.sections[i] = s
		changed = append(changed, i)
		rest = rest[n:]
	}
	if rest != "" {
		return nil, nil, fmt.Sprintf("new section %.80q", strings.TrimSpace(firstLine(rest)))
	}
	return next, changed, ""
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
		from := end - len(m.sections[i].text)
		same := text.Size() - from
		// Where the byte before is the same too, it ends a line as it does in m. A look at each would cost a step per piece.
		if same > suffix || same == suffix && text.Slice(from-1, from) != "\n" {
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
