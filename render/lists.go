package render

import "strings"

// Map and pattern files have no quoting at all: HAProxy strips blanks from both ends of a line, takes what
// follows "#" at its start for a comment, and in a map ends the key at the first blank. So a value either
// fits or it does not.

// mapLine writes a line of a map: a key, blanks, a value.
func (e *escaper) mapLine() {
	e.plain()
	text := string(e.cand)
	content := strings.TrimLeft(text, " \t")
	if e.isComment(content) {
		e.commented()
		return
	}
	start := len(text) - len(content)
	keyEnd := start + strings.IndexAny(content+" ", " \t")
	for i := range e.pieces {
		p := &e.pieces[i]
		if p.span == nil {
			continue
		}
		p.listed()
		inKey := i == 0 || p.start == start || p.start < keyEnd || p.end <= keyEnd
		if inKey && strings.ContainsAny(p.value, " \t") {
			p.refuse("the key of a map cannot hold a blank")
		}
		if p.start <= start && strings.HasPrefix(content, "#") {
			p.refuse(`a line that begins with "#" is a comment`)
		}
		e.edges(p, text)
	}
}

// patternLine writes a line of a pattern file.
func (e *escaper) patternLine() {
	e.plain()
	text := string(e.cand)
	content := strings.TrimLeft(text, " \t")
	if e.isComment(content) {
		e.commented()
		return
	}
	for i := range e.pieces {
		p := &e.pieces[i]
		if p.span == nil {
			continue
		}
		p.listed()
		if strings.HasPrefix(content, "#") {
			p.refuse(`a line that begins with "#" is a comment`)
		}
		e.edges(p, text)
	}
}

// otherLine writes a line of a file whose syntax nuncio does not know: a value may not hold control characters,
// so that it stays on its line.
func (e *escaper) otherLine() {
	e.plain()
	for i := range e.pieces {
		if p := &e.pieces[i]; p.span != nil {
			p.listed()
		}
	}
}

// plain composes the line without any escaping.
func (e *escaper) plain() {
	for i := range e.pieces {
		p := &e.pieces[i]
		p.start = len(e.cand)
		if p.span == nil {
			e.cand = append(e.cand, p.literal...)
		} else {
			e.cand = append(e.cand, p.value...)
		}
		p.end = len(e.cand)
	}
}

// listed refuses what would end the line.
func (p *piece) listed() {
	for i := range len(p.value) {
		if c := p.value[i]; c < ' ' && c != '\t' || c == 0x7f {
			p.refuse("it holds a line break or another control character, and this file has no way to escape one")
			return
		}
	}
}

// edges refuses a value that lost something by standing at the end or the beginning of its field, and one that
// leaves its field empty.
func (e *escaper) edges(p *piece, text string) {
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

// isComment says whether the template itself made the line a comment.
func (e *escaper) isComment(content string) bool {
	for i := range e.pieces {
		literal := strings.TrimLeft(e.pieces[i].literal, " \t")
		if e.pieces[i].span != nil {
			return false
		}
		if literal != "" {
			return literal[0] == '#'
		}
	}
	return content == ""
}

func (e *escaper) commented() {
	e.cand = e.cand[:0]
	for i := range e.pieces {
		p := &e.pieces[i]
		e.cand = append(e.cand, p.literal...)
		if p.span != nil {
			e.cand = append(e.cand, strings.Map(printableInComment, p.span.value)...)
			p.reason = ""
		}
	}
}
