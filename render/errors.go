package render

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"nuncio/internal/certs"
)

// Error is an error in a template, or in a value that its place in a template does not allow.
type Error struct {
	File    string // name of the template within its tree
	Line    int    // counted from 1; 0 if the error has no place
	Column  int    // counted from 1 in bytes; 0 if only the line is known
	Message string
	Excerpt string // the line of the template, without its LF
}

// Error returns place and message on the first line, then the line of the template and a caret below the column.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Column > 0 {
		fmt.Fprintf(&b, ":%d", e.Column)
	}
	fmt.Fprintf(&b, ": %s", e.Message)
	if e.Excerpt != "" {
		b.WriteString("\n    " + strings.ReplaceAll(e.Excerpt, "\t", " "))
		if e.Column > 0 && e.Column <= len(e.Excerpt)+1 {
			b.WriteString("\n    " + strings.Repeat(" ", len([]rune(e.Excerpt[:e.Column-1]))) + "^")
		}
	}
	return b.String()
}

// Dropped is a line that was dropped from a file because its place does not allow a value in it.
type Dropped struct {
	File     string `json:"file"`     // the rendered file, such as "haproxy.cfg"
	Line     int    `json:"line"`     // of the rendered file, where the line would have been
	Template string `json:"template"` // the template's place, such as "haproxy.cfg.tmpl:12:7"
	Value    string `json:"value"`    // the value, shortened and printable
	Reason   string `json:"reason"`   // what is wrong, and what would be allowed
	// Emptied is the backend that has no server left for want of this line and others like it.
	Emptied string `json:"emptied,omitempty"`
}

// String returns one line for a log or a terminal.
func (r Dropped) String() string {
	text := fmt.Sprintf("%s: line %d of %s dropped: value %s: %s", r.Template, r.Line, r.File, r.Value, r.Reason)
	if r.Emptied != "" {
		text += fmt.Sprintf(" (backend %s has no server left)", r.Emptied)
	}
	return text
}

// position is a place in a template.
type position struct {
	file         string
	line, column int
}

func (p position) String() string { return fmt.Sprintf("%s:%d:%d", p.file, p.line, p.column) }

// fault is an error at a known place. withExcerpt adds the text of the line.
type fault struct {
	at      position
	message string
}

func (f *fault) Error() string { return f.message }

// located reads the position in a message of text/template, "template: NAME:LINE: MESSAGE" or "template: NAME:LINE:COLUMN:
// MESSAGE". The form is documented, but no error type has the position.
var located = regexp.MustCompile(`(?s)^(?:template: )?(.+?):(\d+):(?:(\d+):)? (.*)$`)

// explain makes an *Error from an error of parsing or executing a template.
func explain(tree map[string]string, file string, err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	if f := (*fault)(nil); errors.As(err, &f) {
		return withExcerpt(tree, f.at, f.message)
	}
	message := err.Error()
	if exec, ok := errors.AsType[template.ExecError](err); ok {
		message = exec.Err.Error()
	}
	at := position{file: file}
	if m := located.FindStringSubmatch(message); m != nil {
		if _, known := tree[m[1]]; known {
			line, _ := strconv.Atoi(m[2])   // digits, by the expression; a huge number has no excerpt
			column, _ := strconv.Atoi(m[3]) // empty for a parse error
			if column > 0 || m[3] != "" {
				column++ // text/template counts bytes before the place
			}
			at, message = position{m[1], line, column}, m[4]
		}
	}
	return withExcerpt(tree, at, message)
}

func withExcerpt(tree map[string]string, at position, message string) *Error {
	e := &Error{File: at.file, Line: at.line, Column: at.column, Message: message}
	if lines := strings.Split(tree[at.file], "\n"); at.line > 0 && at.line <= len(lines) {
		e.Excerpt = certs.Redact(strings.TrimSuffix(lines[at.line-1], "\r"))
	}
	return e
}

// shorten returns a value quoted and on one line, and cuts it after 60 bytes. A private key is left out.
func shorten(value string) string {
	const limit = 60
	if certs.HoldsKey(value) {
		return strconv.Quote(certs.Hidden)
	}
	if len(value) <= limit {
		return strconv.Quote(value)
	}
	return strconv.Quote(strings.ToValidUTF8(value[:limit], "")) + fmt.Sprintf("... (%d bytes)", len(value))
}

func sortDropped(all []Dropped) {
	slices.SortStableFunc(all, func(a, b Dropped) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
}
