package haproxy

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxWords is the number of words HAProxy reads from one line; it refuses a longer line, and some versions
// crash on one during a reload.
const MaxWords = 64

// Line is a line of a configuration with at least one word. Blank lines and lines with only a comment are not returned.
type Line struct {
	Number int    // counted from 1 as HAProxy counts in its messages
	Offset int    // offset of the line in the text, in bytes
	Words  []Word // at least one
}

// Keyword returns the text of the first word.
func (l Line) Keyword() string { return l.Words[0].Text }

// Word is a word of a line, as HAProxy passes it to the keyword's parser.
type Word struct {
	Text     string // after quotes, escapes and environment variables
	Start    int    // offset of the word in the text, in bytes, quotes included
	End      int    // offset of the byte after it
	Expanded bool   // whether it contains the value of an environment variable
}

// LexError describes why HAProxy cannot split a configuration into words. Versions 3.2 and later crash when they reload
// such a file, so it must never reach a running master.
type LexError struct {
	Line   int // counted from 1
	Column int // counted from 1, in bytes
	Reason string
}

func (e *LexError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", ConfigFile, e.Line, e.Column, e.Reason)
}

// Lex splits a configuration into words by HAProxy's own rules. Environment variables come from getenv, as changed by
// the text's own setenv, presetenv, unsetenv and resetenv; nil means an empty environment. An error is always a
// *LexError for the first invalid line; the lines before it are returned too.
func Lex(text []byte, getenv func(string) (string, bool)) ([]Line, error) {
	lx := lexer{text: string(text), env: environment{get: getenv}}
	err := lx.run()
	return lx.lines, err
}

// EachLine is Lex for callers that look at one line after the other. It keeps no line, and use must not keep one
// either. It stops at the first error, or when use returns false.
func EachLine(text string, getenv func(string) (string, bool), use func(Line) bool) error {
	lx := lexer{text: text, env: environment{get: getenv}, use: use}
	return lx.run()
}

// AppendWords splits one line, given without its LF, and appends its words to dst. Their positions count from the start of
// the line.
func AppendWords(dst []Word, line string, getenv func(string) (string, bool)) ([]Word, error) {
	lx := lexer{text: line, number: 1, words: dst, first: len(dst), env: environment{get: getenv}}
	if err := lx.line(len(line)); err != nil {
		return dst, err
	}
	return lx.words, nil
}

// Quoting is the meaning of the bytes at a place of a configuration line.
type Quoting int

// The four kinds of place.
const (
	Bare    Quoting = iota // outside quotes
	Weak                   // between double quotes
	Strong                 // between single quotes
	Comment                // behind "#", or behind a CR that ended the line
)

// AppendQuotings appends the quoting at each marker byte of a line, given without its LF, so that a value can be escaped for
// the place where it stands. A marker is part of a word and complete in itself. On an error, a *LexError, the markers
// before it are returned too; a marker within an escape or within the name of a variable is an error.
func AppendQuotings(dst []Quoting, line string, marker byte) ([]Quoting, error) {
	lx := lexer{text: line, number: 1, marker: marker, quotings: dst}
	err := lx.line(len(line))
	return lx.quotings, err
}

type lexer struct {
	text   string
	pos    int // where the next line begins
	number int
	lines  []Line
	use    func(Line) bool // if set, called with each line instead of keeping it
	env    environment

	marker   byte // 0: none
	quotings []Quoting

	start    int    // of the line, in text
	words    []Word // chunk that words are cut from, so that a line needs no allocation
	first    int    // index of the line's first word in words
	count    int    // of the line's words; when markers are looked for, none is kept
	section  string
	buf      []byte // the current word, if it differs from the text
	expanded bool
}

func (lx *lexer) run() error {
	for lx.pos < len(lx.text) {
		length := strings.IndexByte(lx.text[lx.pos:], '\n')
		lx.number++
		lx.start = lx.pos
		if length < 0 {
			return lx.fault(len(lx.text), "the last line does not end in a newline")
		}
		eol := lx.pos + length
		lx.pos = eol + 1
		if cap(lx.words)-len(lx.words) < MaxWords+1 {
			lx.words = make([]Word, 0, 64*(MaxWords+1))
		}
		lx.first = len(lx.words)
		if err := lx.line(eol); err != nil {
			return err
		}
		words := lx.words[lx.first:len(lx.words):len(lx.words)]
		if len(words) == 0 {
			continue
		}
		line := Line{Number: lx.number, Offset: lx.start, Words: words}
		if lx.use == nil {
			lx.lines = append(lx.lines, line)
		} else if !lx.use(line) {
			return nil
		}
		if IsSection(words[0].Text) {
			lx.section = words[0].Text
		}
		if lx.section == "global" {
			lx.env.directive(words)
		}
		if lx.use != nil {
			lx.words = lx.words[:lx.first]
		}
	}
	return nil
}

// fault is an error at a byte of the text.
func (lx *lexer) fault(at int, reason string) error {
	return &LexError{Line: lx.number, Column: at - lx.start + 1, Reason: reason}
}

// line lexes the line from lx.start to eol.
func (lx *lexer) line(eol int) error {
	i, s := lx.start, lx.text[:eol]
	lx.count = 0
	if nul := strings.IndexByte(s[i:], 0); nul >= 0 {
		return lx.fault(i+nul, "NUL byte: HAProxy would drop the rest of the line")
	}
	for i < eol {
		if isSpace(s[i]) {
			i++
			continue
		}
		if s[i] == '#' {
			lx.mark(s[i:], Comment)
			return nil
		}
		next, err := lx.word(s, i)
		if err != nil {
			return err
		}
		if lx.count > MaxWords {
			return lx.fault(i, fmt.Sprintf("more than %d words", MaxWords))
		}
		i = next
	}
	return nil
}

// mark notes the quoting of the markers in a part of the line.
func (lx *lexer) mark(part string, q Quoting) {
	for i := 0; lx.marker != 0 && i < len(part); i++ {
		if part[i] == lx.marker {
			lx.quotings = append(lx.quotings, q)
		}
	}
}

// word lexes the word that begins at s[start] and returns where the next one may begin.
func (lx *lexer) word(s string, start int) (next int, err error) {
	i := start
	for i < len(s) && plain[s[i]] {
		i++
	}
	lx.mark(s[start:i], Bare)
	if i == len(s) || isSpace(s[i]) || s[i] == '#' { // the usual case
		if lx.count++; lx.marker == 0 {
			lx.words = append(lx.words, Word{Text: s[start:i], Start: start, End: i})
		}
		return lx.afterWord(s, i), nil
	}
	lx.buf, lx.expanded = append(lx.buf[:0], s[start:i]...), false
	var quote byte
	opened := 0
	for i < len(s) {
		c := s[i]
		switch {
		case quote == 0 && (isSpace(c) || c == '#'):
			lx.emit(start, i)
			return lx.afterWord(s, i), nil
		case c == '\r':
			// A CR ends the line even here, which leaves the quote open.
			return 0, lx.fault(opened, fmt.Sprintf("the quote %c is still open at a carriage return", quote))
		case (c == '"' || c == '\'') && quote == 0:
			quote, opened = c, i
			i++
		case quote != 0 && c == quote:
			quote = 0
			i++
		case c == '\\' && quote != '\'':
			n, reason := lx.escape(s[i:], quote == '"')
			if reason != "" {
				return 0, lx.fault(i, reason)
			}
			i += n
		case c == '$' && quote == '"':
			n, reason := lx.variable(s[i:], &start, i)
			if reason != "" {
				return 0, lx.fault(i, reason)
			}
			i += n
		default:
			if c == lx.marker && lx.marker != 0 {
				lx.quotings = append(lx.quotings, quotings[quote])
			}
			lx.buf = append(lx.buf, c)
			i++
		}
	}
	if quote != 0 {
		return 0, lx.fault(opened, fmt.Sprintf("the quote %c is never closed on this line", quote))
	}
	lx.emit(start, i)
	return i, nil
}

var quotings = map[byte]Quoting{0: Bare, '"': Weak, '\'': Strong}

// afterWord returns where the next word may begin. For HAProxy a CR directly after a word ends the line, and it ignores
// what follows; a CR among blanks is a blank.
func (lx *lexer) afterWord(s string, i int) int {
	if i < len(s) && s[i] == '\r' {
		lx.mark(s[i:], Comment)
		return len(s)
	}
	return i
}

func (lx *lexer) emit(start, end int) {
	// line refuses a word too many; until then an expansion must not outgrow the chunk.
	if lx.count++; lx.marker == 0 && lx.count <= MaxWords+1 {
		lx.words = append(lx.words, Word{Text: string(lx.buf), Start: start, End: end, Expanded: lx.expanded})
	}
}

const withinName = `a value stands within an escape or the name of a variable: write "\\" for a backslash and "${NAME}" for a variable`

// escape handles a backslash at s[0] and returns how many bytes it consumed, or why HAProxy refuses it.
func (lx *lexer) escape(s string, weak bool) (n int, reason string) {
	next := byte(0)
	if len(s) > 1 {
		next = s[1]
	}
	if next == lx.marker && next != 0 {
		return 0, withinName
	}
	switch next {
	case ' ', '\\', '#', '"', '\'':
		lx.buf = append(lx.buf, next)
		return 2, ""
	case 'n':
		lx.buf = append(lx.buf, '\n')
		return 2, ""
	case 'r':
		lx.buf = append(lx.buf, '\r')
		return 2, ""
	case 't':
		lx.buf = append(lx.buf, '\t')
		return 2, ""
	case 'x':
		if len(s) >= 4 {
			if b, err := strconv.ParseUint(s[2:4], 16, 8); err == nil {
				lx.buf = append(lx.buf, byte(b))
				return 4, ""
			}
		}
		return 0, `\x is not followed by two hexadecimal digits`
	case '$':
		if weak { // outside quotes "$" is not special, so the backslash stays
			lx.buf = append(lx.buf, '$')
			return 2, ""
		}
	}
	lx.buf = append(lx.buf, '\\')
	return 1, ""
}

// variable expands the "$" at s[0], inside weak quotes, and returns how many bytes it consumed. start is where
// the current word began; an expansion into several words moves it.
func (lx *lexer) variable(s string, start *int, at int) (n int, reason string) {
	i := 1
	brace := i < len(s) && s[i] == '{'
	if brace {
		i++
	}
	if i == len(s) || !isNameStart(s[i]) && s[i] != '.' {
		return 0, `"$" is not followed by a variable's name; write "\$" for the character`
	}
	from := i
	for i++; i < len(s) && (isNameStart(s[i]) || s[i] >= '0' && s[i] <= '9'); i++ {
	}
	name := s[from:i]
	if lx.marker != 0 {
		rest := s[i:]
		if brace {
			rest, _, _ = strings.Cut(rest, "}")
		} else {
			rest = rest[:min(1, len(rest))]
		}
		if strings.IndexByte(rest, lx.marker) >= 0 {
			return 0, withinName
		}
	}
	value, set, ok := lx.lookup(name)
	if !ok {
		return 0, fmt.Sprintf("unknown variable %s", name)
	}
	split := brace && strings.HasPrefix(s[i:], "[*]")
	if split {
		i += len("[*]")
	} else if brace && i < len(s) && s[i] == '[' {
		return 0, fmt.Sprintf("%s[ is not followed by *]", name)
	}
	if brace {
		end := strings.IndexByte(s[i:], '}')
		if end < 0 || end > 0 && s[i] != '-' {
			return 0, fmt.Sprintf("${%s is not followed by }", name)
		}
		if end > 0 && !set {
			value = s[i+1 : i+end]
		}
		i += end + 1
	}
	lx.expanded = true
	lx.expand(value, split, start, at)
	return i, ""
}

func (lx *lexer) expand(value string, split bool, start *int, at int) {
	if !split {
		lx.buf = append(lx.buf, value...)
		return
	}
	for i := 0; i < len(value); i++ {
		if !isSpace(value[i]) {
			lx.buf = append(lx.buf, value[i])
			continue
		}
		for i+1 < len(value) && isSpace(value[i+1]) {
			i++
		}
		lx.emit(*start, at)
		lx.buf, *start = lx.buf[:0], at
	}
}

func (lx *lexer) lookup(name string) (value string, set, ok bool) {
	switch name {
	case ".LINE":
		return strconv.Itoa(lx.number), true, true
	case ".FILE":
		return ConfigFile, true, true
	case ".SECTION":
		return lx.section, lx.section != "", true
	}
	if name[0] == '.' {
		return "", false, false
	}
	value, set = lx.env.lookup(name)
	return value, set, true
}

// plain contains the bytes that have no special meaning outside quotes.
var plain = func() (t [256]bool) {
	for i := range t {
		t[i] = !isSpace(byte(i)) && !strings.ContainsRune("#\\\"'\x00", rune(i))
	}
	return t
}()

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isNameStart(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
