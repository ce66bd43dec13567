package render

import (
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// Untrusted is an action whose value would not come out as confd prints it: it is refused where it stands, or HAProxy would
// read it in another way than confd's users mean it.
type Untrusted struct {
	Template string `json:"template"` // its place, such as "templates/haproxy.tmpl:12:7"
	Action   string `json:"action"`   // as it is written
	Value    string `json:"value"`    // shortened and printable
	Reason   string `json:"reason"`
	Write    string `json:"write"` // in place of the action; empty if only another value helps
}

// String returns one line for a terminal.
func (u Untrusted) String() string {
	text := fmt.Sprintf("%s: %s prints %s: %s", u.Template, u.Action, u.Value, u.Reason)
	if u.Write != "" {
		text += "; write " + u.Write
	}
	return text
}

// survey notes which values of the line at hand are untrusted, and reports whether the line is refused.
func (e *escaper) survey(text string) (refused bool) {
	for i := range e.line.pieces {
		p := &e.line.pieces[i]
		switch {
		case p.printed == nil:
		case p.reason != "":
			refused = true
			e.note(p, p.reason, e.advice(text, p))
		case e.kind == configKind && e.readsOtherwise(p):
			write := e.t.call("raw", p.printed.action)
			if e.sameAsWords(text, p) {
				write = e.t.call("words", p.printed.action)
			}
			e.note(p, "it is printed as one piece of data; as confd prints it HAProxy would read something else", write)
		}
	}
	return refused
}

func (e *escaper) note(p *piece, reason, write string) {
	u := Untrusted{
		Template: e.t.where[p.printed.action].String(), Action: "{{" + e.t.actions[p.printed.action].source + "}}", Value: shorten(p.printed.value),
		Reason: reason, Write: write,
	}
	known := slices.ContainsFunc(e.t.run.untrusted, func(other Untrusted) bool { return other.Template == u.Template && other.Write == u.Write })
	if !known {
		e.t.run.untrusted = append(e.t.run.untrusted, u)
	}
}

// readsOtherwise reports whether HAProxy would read other words if the value stood in its line as it is. What confd gets wrong
// itself, a "#" that begins a comment, is no reason to trust a value.
func (e *escaper) readsOtherwise(p *piece) bool {
	if p.quoting == haproxy.Comment || !strings.ContainsAny(p.value, " \t\n\\\"'$") && !strings.Contains(p.value, "%[") && !strings.Contains(p.value, "%{") {
		return false
	}
	return !sameWords(e.plainly(p), wordsOf(string(e.line.text)))
}

// plainly returns the words of the line with one value as it is.
func (e *escaper) plainly(p *piece) []string {
	text := e.line.text
	return wordsOf(string(text[:p.start]) + p.value + string(text[p.end:]))
}

// sameAsWords reports whether the function words would print what confd prints.
func (e *escaper) sameAsWords(text string, p *piece) bool {
	at, all := e.markOf(text, p.printed), p.printed.cut(false)
	if at < 0 || len(all) < 2 {
		return false
	}
	kept := len(e.printed)
	changed := text[:at] + e.marks(all) + text[at+markBytes:]
	trial := line{rules: e.line.rules}
	trial.reset(changed, e.printed)
	trial.config(changed)
	e.printed = e.printed[:kept]
	return trial.refused() == nil && sameWords(wordsOf(string(trial.text)), e.plainly(p))
}

func wordsOf(line string) []string {
	if strings.Contains(line, "\n") {
		return nil
	}
	words, err := haproxy.AppendWords(nil, line, func(name string) (string, bool) { return "value of " + name, true })
	if err != nil {
		return nil
	}
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = w.Text
	}
	return texts
}

// sameWords also tells lines that cannot be read from all others.
func sameWords(a, b []string) bool { return a != nil && b != nil && slices.Equal(a, b) }

// trust prints a value as confd does, with all that it may do to the file.
func (t *Templates) trust(action int, value any) (string, error) {
	if w, several := value.(severalWords); several {
		value = w.value
	}
	text, err := printable(value)
	if err != nil {
		var ok bool
		if text, ok = confdText(value); !ok {
			return "", &fault{t.where[action], err.Error()}
		}
	}
	return t.asWritten(action, rawText{text})
}
