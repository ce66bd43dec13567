package render

import "strings"

const blanks = " \t"

// splitOuterBlanks takes blanks and line ends around values out of them, where they change nothing but the layout: confd prints
// them, and values that were put from a file or by echo end with one. It returns how many lines end within the values.
func (e *escaper) splitOuterBlanks(text string) (split string, lines int) {
	if e.t.confd == nil || strings.IndexByte(text, valueMarker) < 0 {
		return text, 0
	}
	var b strings.Builder
	for rest := text; ; {
		at := strings.IndexByte(rest, valueMarker)
		if at < 0 {
			b.WriteString(rest)
			return b.String(), lines
		}
		b.WriteString(rest[:at])
		mark, after := rest[at:at+markBytes], rest[at+markBytes:]
		before := b.String()
		lead, value, trail, n := outerBlanks(e.printed[markIndex(mark)].value, before == "" || strings.ContainsAny(before[len(before)-1:], blanks), after)
		if lead+trail != "" || n > 0 {
			p := e.printed[markIndex(mark)]
			p.value = value
			mark, lines = lead+e.marks([]printed{p})+trail, lines+n
		}
		b.WriteString(mark)
		rest = after
	}
}

// outerBlanks cuts a value: blanks that stand beside other blanks or the end of the line, and line ends behind which nothing
// follows.
func outerBlanks(whole string, blankBefore bool, after string) (lead, value, trail string, lines int) {
	value = whole
	if strings.Trim(after, blanks) == "" {
		value = strings.TrimRight(value, " \t\r\n")
		lines = strings.Count(whole[len(value):], "\n")
		if lines == 0 {
			trail = whole[len(value):]
		}
	} else if strings.ContainsAny(after[:1], blanks) {
		value = strings.TrimRight(value, blanks)
		trail = whole[len(value):]
	}
	if blankBefore && value != "" {
		trimmed := strings.TrimLeft(value, blanks)
		lead, value = value[:len(value)-len(trimmed)], trimmed
	}
	return lead, value, trail, lines
}
