package render

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// fileKind says by which rules values are escaped.
type fileKind int

const (
	configKind  fileKind = iota // *.cfg: HAProxy's configuration
	mapKind                     // *.map: a key, blanks, a value
	patternKind                 // *.acl, *.lst: one pattern per line
	pemKind                     // *.pem, *.crt, *.key: certificates, of any number of lines
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
	case ".pem", ".crt", ".cer", ".cert", ".key":
		return pemKind
	}
	return otherKind
}

// escaped is the text of one file, or of one memoised partial, ready for HAProxy.
type escaped struct {
	text    haproxy.Text
	lines   int
	dropped []Dropped
	unmet   []Unmet
	origins []int // the number of the text or action that each line comes from; only with Options.Origins
}

// escaper turns marked text, of a file or of a memoised partial, into what HAProxy may read.
type escaper struct {
	t       *Templates
	file    string
	kind    fileKind
	printed []printed
	memos   []memoCall

	line line // at hand
	made escaped
	done []haproxy.Text // finished pieces; a memoised text is one of them as it is, and is never copied
	out  []byte         // what follows done
}

// escaper escapes what has been printed since the file or the memoised partial began.
func (t *Templates) escaper() *escaper {
	r := t.run
	e := &escaper{t: t, file: r.file, kind: r.kind, printed: slices.Clip(r.printed)}
	e.line.rules = &valueRules{operators: t.ownData, private: t.opts.Private}
	return e
}

func (e *escaper) escape(text string) (escaped, error) {
	e.out = make([]byte, 0, len(text)+len(text)/8)
	for len(text) > 0 {
		at := firstMarker(text)
		if at < 0 {
			e.copyLines(text)
			break
		}
		start := strings.LastIndexByte(text[:at], '\n') + 1
		e.copyLines(text[:start])
		line, rest, found := strings.Cut(text[start:], "\n")
		if err := e.escapeLine(line, found); err != nil {
			return escaped{}, err
		}
		text = rest
	}
	// HAProxy refuses a last line without its LF. A memoised text has it.
	if n := len(e.out); n > 0 && e.out[n-1] != '\n' && e.kind != otherKind && e.kind != pemKind {
		e.out = append(e.out, '\n')
	}
	e.flush()
	e.made.text = haproxy.Join(e.done...)
	return e.made, nil
}

// copyLines takes lines without any mark as they are.
func (e *escaper) copyLines(text string) {
	e.out = append(e.out, text...)
	if e.t.opts.Origins {
		for range strings.Lines(text) {
			e.made.origins = append(e.made.origins, noOrigin)
		}
	}
}

// flush ends a piece.
func (e *escaper) flush() {
	if len(e.out) == 0 {
		return
	}
	e.made.lines += bytes.Count(e.out, []byte("\n"))
	e.done = append(e.done, haproxy.NewText(string(e.out)))
	e.out = e.out[:0]
}

func (e *escaper) escapeLine(text string, newline bool) error {
	text, origin := e.takeOrigin(text)
	if at := strings.IndexByte(text, memoMarker); at >= 0 {
		return e.memoLine(text, at)
	}
	text, lines := e.splitOuterBlanks(text)
	l := &e.line
	l.reset(text, e.printed)
	drop := false
	switch e.kind {
	case configKind:
		drop = e.config(text)
	case mapKind, patternKind:
		l.list(e.kind == mapKind)
		drop = true
	default:
		l.other(e.kind == pemKind)
	}
	if e.t.opts.Survey && e.survey(text) {
		return nil
	}
	if p := l.refused(); p != nil {
		at := e.t.where[p.printed.action]
		reason := e.withAdvice(text, p)
		if !drop || p.printed.refused != "" && p.printed.value != noValue { // a list is the template's mistake, a missing field that of one value
			return &fault{at, "value " + shorten(p.printed.value) + ": " + reason}
		}
		e.flush()
		e.made.dropped = append(e.made.dropped, Dropped{
			File: e.file, Line: e.made.lines + 1, Template: at.String(), Value: shorten(p.printed.value), Reason: reason,
		})
		return nil
	}
	e.out = append(e.out, l.text...)
	if newline {
		lines++
	}
	for range lines {
		e.out = append(e.out, '\n')
	}
	if e.t.opts.Origins {
		for range max(1, lines) {
			e.made.origins = append(e.made.origins, origin)
		}
	}
	return nil
}

// memoLine puts memoised texts in place: lines of their own, escaped already. The first memo's mark is at first.
func (e *escaper) memoLine(line string, first int) error {
	action := e.memos[markIndex(line[first:])].action
	rest := strings.TrimSpace(line)
	for rest != "" {
		if rest[0] != memoMarker {
			return &fault{e.t.where[action], "memo: its lines must stand alone: move the text beside this call to a line of its own"}
		}
		e.flush()
		entries := e.memos[markIndex(rest)].entries
		e.done = slices.Grow(e.done, len(entries))
		for _, entry := range entries {
			for _, d := range entry.dropped {
				d.Line += e.made.lines
				e.made.dropped = append(e.made.dropped, d)
			}
			e.made.unmet = append(e.made.unmet, entry.unmet...)
			e.done = append(e.done, entry.text)
			e.made.lines += entry.lines
			e.made.origins = append(e.made.origins, entry.origins...)
		}
		rest = strings.TrimLeft(rest[markBytes:], " \t")
	}
	return nil
}
