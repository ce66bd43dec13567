package render

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"strings"

	"nuncio/internal/haproxy"
)

// fileKind says by which rules values are escaped.
type fileKind int

const (
	configKind  fileKind = iota // *.cfg: HAProxy's configuration
	mapKind                     // *.map: a key, blanks, a value
	patternKind                 // *.acl, *.lst: one pattern per line
	otherKind                   // anything else
)

func kindOf(file string) fileKind {
	switch path.Ext(file) {
	case ".cfg":
		return configKind
	case ".map":
		return mapKind
	case ".acl", ".lst":
		return patternKind
	}
	return otherKind
}

// escaper turns the text of a file with its marks into what HAProxy may read.
type escaper struct {
	t     *Templates
	file  string
	kind  fileKind
	spans []span
	memos [][]*memoEntry

	done    []haproxy.Text // what is finished; a memoised text stands there as it is, and is never copied
	lines   int            // LFs in it
	out     []byte         // what follows it
	dropped []Dropped

	// of the line at hand
	pieces []piece
	words  []haproxy.Word
	cand   []byte
}

// piece is a part of a line: literal text, or a value.
type piece struct {
	literal string
	span    *span // nil for literal text

	value      string          // what is written: the value, or a stand-in for one that was refused
	quoting    haproxy.Quoting // where it stands
	start, end int             // of what is written, in the candidate line
	format     bool            // "%" is to be doubled
	dashes     bool            // "--" is to be put in front
	reason     string          // why it is refused
}

func (e *escaper) escape(text string) (escaped, error) {
	e.out = make([]byte, 0, len(text)+len(text)/8)
	for len(text) > 0 {
		at := firstMarker(text)
		if at < 0 {
			e.out = append(e.out, text...)
			break
		}
		start := strings.LastIndexByte(text[:at], '\n') + 1
		e.out = append(e.out, text[:start]...)
		line, rest, found := strings.Cut(text[start:], "\n")
		if err := e.line(line, found); err != nil {
			return escaped{}, err
		}
		text = rest
	}
	// HAProxy refuses a last line without its LF. A memoised text has it.
	if n := len(e.out); n > 0 && e.out[n-1] != '\n' && e.kind != otherKind {
		e.out = append(e.out, '\n')
	}
	e.flush()
	return escaped{haproxy.Join(e.done...), e.lines, e.dropped}, nil
}

// flush ends a piece.
func (e *escaper) flush() {
	if len(e.out) == 0 {
		return
	}
	e.lines += bytes.Count(e.out, []byte("\n"))
	e.done = append(e.done, haproxy.NewText(string(e.out)))
	e.out = e.out[:0]
}

func (e *escaper) line(line string, lf bool) error {
	if strings.IndexByte(line, memoMarker) >= 0 {
		return e.memoLine(line)
	}
	e.split(line)
	drop := false
	switch e.kind {
	case configKind:
		drop = e.configLine()
	case mapKind:
		e.mapLine()
		drop = true
	case patternKind:
		e.patternLine()
		drop = true
	default:
		e.otherLine()
	}
	for i := range e.pieces {
		p := &e.pieces[i]
		if p.reason == "" {
			continue
		}
		if !drop {
			return &fault{e.t.where[p.span.action], "value " + shorten(p.span.value) + ": " + p.reason}
		}
		e.refuse(p)
		return nil
	}
	e.out = append(e.out, e.cand...)
	if lf {
		e.out = append(e.out, '\n')
	}
	return nil
}

func (e *escaper) refuse(p *piece) {
	e.flush()
	e.dropped = append(e.dropped, Dropped{
		File: e.file, Line: e.lines + 1, Template: e.t.where[p.span.action].String(), Value: shorten(p.span.value), Reason: p.reason,
	})
}

// memoLine puts memoised texts in place: lines of their own, escaped already.
func (e *escaper) memoLine(line string) error {
	rest := strings.TrimSpace(line)
	for rest != "" {
		if rest[0] != memoMarker {
			return fmt.Errorf("memo: its lines must stand alone, without other text on the line of the call")
		}
		e.flush()
		for _, entry := range e.memos[markIndex(rest)] {
			for _, r := range entry.dropped {
				r.Line += e.lines
				e.dropped = append(e.dropped, r)
			}
			e.done = append(e.done, entry.text)
			e.lines += entry.lines
		}
		rest = strings.TrimLeft(rest[markBytes:], " \t")
	}
	return nil
}

// split cuts a line into literal text and values.
func (e *escaper) split(line string) {
	e.pieces, e.cand = e.pieces[:0], e.cand[:0]
	for line != "" {
		at := strings.IndexByte(line, valueMarker)
		if at < 0 {
			e.pieces = append(e.pieces, piece{literal: line})
			return
		}
		if at > 0 {
			e.pieces = append(e.pieces, piece{literal: line[:at]})
		}
		s := &e.spans[markIndex(line[at:])]
		p := piece{span: s, value: s.value, format: s.format}
		if hasMarker(s.value) {
			p.refuse("it holds one of the bytes 0xFD, 0xFE and 0xFF: it is not UTF-8 text, or included text was passed to a function (only printing it works)")
		} else if strings.IndexByte(s.value, 0) >= 0 {
			p.refuse("it holds a NUL byte, which HAProxy cannot read")
		}
		e.pieces = append(e.pieces, p)
		line = line[at+markBytes:]
	}
}

// refuse notes the first reason, and lets a harmless word stand in, so that the rest of the line can be
// looked at.
func (p *piece) refuse(reason string) {
	if p.reason == "" {
		p.reason, p.value = reason, "x"
	}
}

// configLine writes the line and says whether a refused value costs the line only.
func (e *escaper) configLine() (droppable bool) {
	e.compose()
	words, err := haproxy.AppendWords(e.words[:0], string(e.cand), nil)
	e.words = words
	if lex, bad := errors.AsType[*haproxy.LexError](err); bad {
		e.refuseAll("the line cannot be read by HAProxy: " + lex.Reason)
		return false
	}
	if len(words) == 0 {
		return false // blank or a comment
	}
	again := false
	for i := range e.pieces {
		p := &e.pieces[i]
		if p.span == nil || p.quoting == haproxy.Comment {
			continue
		}
		e.judge(p)
		again = again || p.format || p.dashes
	}
	if again {
		e.compose()
	}
	return words[0].Text == "server" && !e.covered(words[0])
}

func (e *escaper) refuseAll(reason string) {
	for i := range e.pieces {
		if p := &e.pieces[i]; p.span != nil {
			p.refuse(reason)
		}
	}
}

// compose writes the line with every value escaped for the quoting around it.
func (e *escaper) compose() {
	var c haproxy.Cursor
	e.cand = e.cand[:0]
	for i := range e.pieces {
		p := &e.pieces[i]
		if p.span == nil {
			c.Feed(p.literal)
			e.cand = append(e.cand, p.literal...)
			continue
		}
		if c.Open() {
			p.refuse(`it stands inside an escape or the name of a variable: write "\\" for a backslash and "${NAME}" for a variable in the template`)
		}
		p.quoting = c.Quoting()
		if p.quoting != haproxy.Comment {
			c.FeedWord()
		}
		if p.dashes {
			e.dashes()
		}
		p.start = len(e.cand)
		e.write(p)
		p.end = len(e.cand)
	}
}

// dashes puts "--" in front of the word that begins here.
func (e *escaper) dashes() {
	at := len(e.cand)
	for at > 0 && (e.cand[at-1] == '"' || e.cand[at-1] == '\'') {
		at--
	}
	e.cand = append(e.cand[:at], append([]byte("-- "), e.cand[at:]...)...)
}

func (e *escaper) write(p *piece) {
	value := p.value
	if p.format {
		value = haproxy.DoublePercent(value)
	}
	switch p.quoting {
	case haproxy.Bare:
		if value == "" {
			return
		}
		if haproxy.IsBare(value) {
			e.cand = append(e.cand, value...)
			return
		}
		e.cand = append(append(append(e.cand, '"'), haproxy.EscapeWeak(value)...), '"')
	case haproxy.Weak:
		e.cand = append(e.cand, haproxy.EscapeWeak(value)...)
	case haproxy.Strong:
		e.cand = append(e.cand, strongEscapes.Replace(value)...)
	case haproxy.Comment:
		e.cand = append(e.cand, strings.Map(printableInComment, p.span.value)...)
		p.reason = ""
	}
}

// strongEscapes leaves the strong quotes, writes the byte by an escape, and enters them again.
var strongEscapes = strings.NewReplacer(`'`, `'\''`, "\n", `'\n'`, "\r", `'\r'`)

func printableInComment(r rune) rune {
	if r < ' ' || r == 0x7f || r == '\ufffd' {
		return ' '
	}
	return r
}

// covered says whether a value is part of a word.
func (e *escaper) covered(w haproxy.Word) bool {
	for i := range e.pieces {
		if p := &e.pieces[i]; p.span != nil && p.quoting != haproxy.Comment && w.Start <= p.start && p.end <= w.End {
			return true
		}
	}
	return false
}
