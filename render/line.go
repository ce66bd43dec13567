package render

import (
	"errors"
	"strings"

	"nuncio/internal/haproxy"
)

// line is one line of a file while its values are escaped. reset begins the next one in the same memory.
type line struct {
	pieces   []piece
	text     []byte         // what may be written, values escaped
	words    []haproxy.Word // of text, in a configuration
	quotings []haproxy.Quoting
	rules    *valueRules
}

// piece is a part of a line: literal text of the template, or a value.
type piece struct {
	literal string
	printed *printed // nil for literal text

	value      string          // what is written: the value, or a stand-in for one that was refused
	quoting    haproxy.Quoting // of its place, in a configuration
	start, end int             // of what is written, in the line's text
	format     bool            // "%" is doubled
	dashes     bool            // "--" is put in front
	reason     string          // why it is refused; empty if it is not
}

// reset cuts marked text into literal text and values.
func (l *line) reset(marked string, all []printed) {
	l.pieces, l.text, l.words = l.pieces[:0], l.text[:0], l.words[:0]
	for marked != "" {
		at := strings.IndexByte(marked, valueMarker)
		if at < 0 {
			l.pieces = append(l.pieces, piece{literal: marked})
			return
		}
		if at > 0 {
			l.pieces = append(l.pieces, piece{literal: marked[:at]})
		}
		v := &all[markIndex(marked[at:])]
		p := piece{printed: v, value: v.value, format: v.format}
		if v.refused != "" {
			p.refuse(v.refused)
		} else if firstMarker(v.value) >= 0 {
			p.refuse("it holds one of the bytes 0xFD, 0xFE and 0xFF: it is not UTF-8 text, or included text was passed to a function (only printing it works)")
		} else if strings.IndexByte(v.value, 0) >= 0 {
			p.refuse("it holds a NUL byte, which HAProxy cannot read")
		}
		l.pieces = append(l.pieces, p)
		marked = marked[at+markBytes:]
	}
}

// refuse notes the first reason, and lets a harmless word stand in, so that the rest of the line can be checked.
func (p *piece) refuse(reason string) {
	if p.reason == "" {
		p.reason, p.value = reason, "x"
	}
}

// refused returns the first value that may not be written, or nil. A value that is none by itself comes before those beside
// it, which were judged with its stand-in.
func (l *line) refused() *piece {
	for i := range l.pieces {
		if p := &l.pieces[i]; p.reason != "" && p.printed.refused != "" {
			return p
		}
	}
	for i := range l.pieces {
		if l.pieces[i].reason != "" {
			return &l.pieces[i]
		}
	}
	return nil
}

// config writes a line of a configuration and reports whether a refused value drops just the line.
func (l *line) config(marked string) (droppable bool) {
	var err error
	if l.quotings, err = haproxy.AppendQuotings(l.quotings[:0], marked, valueMarker); err != nil {
		l.unreadable(err)
		return false
	}
	n := 0
	for i := range l.pieces {
		if p := &l.pieces[i]; p.printed != nil {
			p.quoting = l.quotings[n]
			n++
		}
	}
	l.compose()
	if l.words, err = haproxy.AppendWords(l.words, string(l.text), nil); err != nil {
		l.unreadable(err)
		return false
	}
	if len(l.words) == 0 {
		return false // blank or a comment
	}
	again := false
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.printed == nil || p.quoting == haproxy.Comment {
			continue
		}
		l.checkValue(p)
		again = again || p.format || p.dashes
	}
	if again {
		l.compose()
	}
	return l.words[0].Text == "server" && !l.covered(l.words[0])
}

func (l *line) unreadable(err error) {
	lex, ok := errors.AsType[*haproxy.LexError](err)
	if !ok {
		return
	}
	for i := range l.pieces {
		if p := &l.pieces[i]; p.printed != nil {
			p.refuse("HAProxy cannot read the line: " + lex.Reason)
		}
	}
}

// compose writes the line with every value escaped for the quoting around it.
func (l *line) compose() {
	l.text = l.text[:0]
	for i := range l.pieces {
		p := &l.pieces[i]
		if p.printed == nil {
			l.text = append(l.text, p.literal...)
			continue
		}
		if p.dashes {
			l.insertDashes()
		}
		p.start = len(l.text)
		l.appendValue(p)
		p.end = len(l.text)
	}
}

// insertDashes puts "--" in front of the word that begins here.
func (l *line) insertDashes() {
	at := len(l.text)
	for at > 0 && (l.text[at-1] == '"' || l.text[at-1] == '\'') {
		at--
	}
	l.text = append(l.text[:at], append([]byte("-- "), l.text[at:]...)...)
}

func (l *line) appendValue(p *piece) {
	value := p.value
	if p.format {
		value = haproxy.DoublePercent(value)
	}
	switch p.quoting {
	case haproxy.Bare:
		switch {
		case value == "":
		case haproxy.IsBare(value):
			l.text = append(l.text, value...)
		default:
			l.text = append(append(append(l.text, '"'), haproxy.EscapeWeak(value)...), '"')
		}
	case haproxy.Weak:
		l.text = append(l.text, haproxy.EscapeWeak(value)...)
	case haproxy.Strong:
		l.text = append(l.text, strongEscapes.Replace(value)...)
	case haproxy.Comment:
		l.appendComment(p)
	}
}

// strongEscapes leaves the strong quotes, writes the byte by an escape, and enters them again.
var strongEscapes = strings.NewReplacer(`'`, `'\''`, "\n", `'\n'`, "\r", `'\r'`)

// appendComment writes a value in a comment, where any printable text may stand.
func (l *line) appendComment(p *piece) {
	l.text = append(l.text, strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return ' '
		}
		return r
	}, p.printed.value)...)
	p.reason = ""
}

// covered reports whether a value is part of a word.
func (l *line) covered(w haproxy.Word) bool {
	for i := range l.pieces {
		if p := &l.pieces[i]; p.printed != nil && p.quoting != haproxy.Comment && w.Start <= p.start && p.end <= w.End {
			return true
		}
	}
	return false
}
