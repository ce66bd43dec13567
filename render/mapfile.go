package render

import "strings"

// Map and pattern files have no quoting at all: HAProxy strips blanks from both ends of a line, takes what follows "#" at
// its start for a comment, and in a map ends the key at the first blank. So a value either fits or it does not.

// list writes a line of a map (a key, blanks, a value), or of a list of patterns.
func (l *line) list(isMap bool) {
	l.plain()
	text := string(l.text)
	content := strings.TrimLeft(text, " \t")
	if l.isComment(content) {
		l.comment()
		return
	}
	start := len(text) - len(content)
	keyEnd := start + strings.IndexAny(content+" ", " \t")
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.printed == nil {
			continue
		}
		p.refuseControls(noEscapes)
		inKey := i == 0 || p.start == start || p.start < keyEnd || p.end <= keyEnd
		if isMap && inKey && strings.ContainsAny(p.value, " \t") {
			p.refuse("the key of a map cannot hold a blank")
		}
		if p.start <= start && strings.HasPrefix(content, "#") {
			p.refuse(`a line that begins with "#" is a comment`)
		}
		p.refuseStripped(text)
	}
}

const noEscapes = "it holds a line break or another control character, and this file has no way to escape one"

// other writes a line of a file whose syntax nuncio does not know: a value may not hold control characters, so that it
// stays on its line. A certificate may, since its file has no lines with a meaning of their own.
func (l *line) other(manyLines bool) {
	l.plain()
	if manyLines {
		return
	}
	for i := range l.pieces {
		if p := &l.pieces[i]; p.printed != nil {
			p.refuseControls(noEscapes)
		}
	}
}

// plain composes the line without any escaping.
func (l *line) plain() {
	for i := range l.pieces {
		p := &l.pieces[i]
		p.start = len(l.text)
		if p.printed == nil {
			l.text = append(l.text, p.literal...)
		} else {
			l.text = append(l.text, p.value...)
		}
		p.end = len(l.text)
	}
}

// refuseControls refuses what would end the line.
func (p *piece) refuseControls(reason string) {
	for i := range len(p.value) {
		if c := p.value[i]; c < ' ' && c != '\t' || c == 0x7f {
			p.refuse(reason)
			return
		}
	}
}

// refuseStripped refuses a value that would lose blanks at the ends of its field, and one that leaves its field empty.
func (p *piece) refuseStripped(text string) {
	before, after := text[:p.start], text[p.end:]
	blankBefore := before == "" || strings.HasSuffix(before, " ") || strings.HasSuffix(before, "\t")
	blankAfter := after == "" || strings.HasPrefix(after, " ") || strings.HasPrefix(after, "\t")
	switch {
	case p.value == "" && blankBefore && blankAfter:
		p.refuse("an empty value leaves its field of the line empty")
	case blankBefore && strings.TrimLeft(p.value, " \t") != p.value, blankAfter && strings.TrimRight(p.value, " \t") != p.value:
		p.refuse("HAProxy would strip the blanks at its ends")
	}
}

// isComment reports whether the template itself made the line a comment, or left it blank.
func (l *line) isComment(content string) bool {
	for i := range l.pieces {
		literal := strings.TrimLeft(l.pieces[i].literal, " \t")
		if l.pieces[i].printed != nil {
			return false
		}
		if literal != "" {
			return literal[0] == '#'
		}
	}
	return content == ""
}

func (l *line) comment() {
	l.text = l.text[:0]
	for i := range l.pieces {
		if p := &l.pieces[i]; p.printed != nil {
			l.appendComment(p)
		} else {
			l.text = append(l.text, p.literal...)
		}
	}
}
