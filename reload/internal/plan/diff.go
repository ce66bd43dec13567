package plan

import (
	"fmt"
	"strings"

	"nuncio/internal/haproxy"
)

// Difference says how the sections of two texts differ.
type Difference struct {
	Changed []Pair // sections that both have
	Came    []int  // sections of the newer text alone
	Gone    []int  // sections of the older text alone
}

// Pair is the place of one section in an older text and in a newer one.
type Pair struct{ Old, New int }

// Diff returns the model of a newer text and how its sections differ. A reason other than "" says that a section that both
// have differs in more than server lines, or stands in a different place. Only the sections between the first and the last
// difference are looked at: the others begin and end as before.
func (m *Model) Diff(text haproxy.Text) (next *Model, diff Difference, reason string) {
	if m.blocked != "" {
		return nil, diff, m.blocked
	}
	if !strings.HasSuffix(text.Slice(max(0, text.Size()-1), text.Size()), "\n") {
		return nil, diff, "the text does not end in a newline"
	}
	first, last, begin, end := m.between(text)
	next = &Model{text: text, sections: append(make([]*section, 0, len(m.sections)+1), m.sections[:first]...)}
	rest := text.Slice(begin, end)
	var before, after map[string]bool // titles of what remains, once they are needed
	for i := first; i < last || rest != ""; {
		if i < last && startsWith(rest, m.sections[i]) {
			next.sections = append(next.sections, m.sections[i])
			rest = rest[len(m.sections[i].text):]
			i++
			continue
		}
		name := ""
		if rest != "" {
			name = firstTitle(rest)
		}
		if rest == "" || i == last || name != title(m.sections[i]) {
			if before == nil {
				before, after = titles(m.sections[i:last]), titlesOf(rest)
			}
			switch {
			case i < last && !after[title(m.sections[i])]:
				diff.Gone = append(diff.Gone, i)
				i++
				continue
			case rest == "" || before[name]:
				if rest == "" {
					name = title(m.sections[i])
				}
				return nil, diff, fmt.Sprintf("section %q stands in a different place", name)
			}
		}
		// A copy, because a part of a text keeps all of it in memory, and each section may come from a different text.
		n := nextSection(rest)
		s, err := newSection(strings.Clone(rest[:n]))
		switch {
		case err != nil:
			return nil, diff, err.Error()
		case s.blocked != "":
			return nil, diff, s.blocked
		case i == last || name != title(m.sections[i]):
			diff.Came = append(diff.Came, len(next.sections))
		case s.from != m.sections[i].from || s.structure != m.sections[i].structure:
			return nil, diff, fmt.Sprintf("section %q differs in more than its servers", title(s))
		default:
			diff.Changed = append(diff.Changed, Pair{i, len(next.sections)})
			i++
		}
		next.sections = append(next.sections, s)
		rest = rest[n:]
	}
	next.sections = append(next.sections, m.sections[last:]...)
	return next, diff, ""
}

// startsWith reports whether a text begins with a section. Lines may have been added below it: then the section is longer now.
func startsWith(text string, s *section) bool {
	below, ok := strings.CutPrefix(text, s.text)
	return ok && (below == "" || beginsSection(firstLine(below)))
}

func titles(sections []*section) map[string]bool {
	all := make(map[string]bool, len(sections))
	for _, s := range sections {
		all[title(s)] = true
	}
	return all
}

func titlesOf(text string) map[string]bool {
	all := map[string]bool{}
	for text != "" {
		all[firstTitle(text)] = true
		text = text[nextSection(text):]
	}
	return all
}

// firstTitle is the title of the section that a text begins with, as title gives it.
func firstTitle(text string) string {
	var s section
	for line := range strings.Lines(text[:nextSection(text)]) {
		words, err := haproxy.AppendWords(nil, strings.TrimSuffix(line, "\n"), nil)
		if err == nil && len(words) == 0 {
			continue
		}
		if err == nil {
			s.head(words)
		}
		break
	}
	return title(&s)
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
