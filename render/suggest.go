package render

import (
	"fmt"
	"strings"

	"nuncio/internal/haproxy"
)

// advice says what to write in place of an action whose value was refused, such as "{{words .Value}}"; it is empty where no
// change of the action helps.
func (e *escaper) advice(text string, p *piece) string {
	if p.printed.value == "" || p.printed.refused != "" || firstMarker(p.printed.value) >= 0 || strings.IndexByte(p.printed.value, 0) >= 0 {
		return ""
	}
	return e.t.call(e.safest(text, p), p.printed.action)
}

// safest returns the template function that prints a refused value with the least trust.
func (e *escaper) safest(text string, p *piece) string {
	if e.kind == configKind && p.quoting == haproxy.Bare {
		at := e.markOf(text, p.printed)
		for _, function := range []string{"words", "options"} {
			all := p.printed.cut(function == "options")
			if at < 0 || len(all) == 0 || len(all) == 1 && function == "words" {
				continue
			}
			kept := len(e.printed)
			changed := text[:at] + e.marks(all) + text[at+markBytes:]
			trial := line{rules: e.line.rules}
			trial.reset(changed, e.printed)
			trial.config(changed)
			accepted := trial.refused() == nil
			if e.printed = e.printed[:kept]; accepted {
				return function
			}
		}
	}
	return "raw"
}

// markOf returns where a line has the mark of a value, or -1.
func (e *escaper) markOf(text string, p *printed) int {
	for at := 0; at < len(text); at++ {
		if text[at] == valueMarker && &e.printed[markIndex(text[at:])] == p {
			return at
		}
	}
	return -1
}

// call writes an action with a function around its pipeline.
func (t *Templates) call(function string, action int) string {
	source := t.actions[action].source
	if strings.ContainsAny(source, " |") {
		source = "(" + source + ")"
	}
	return fmt.Sprintf("{{%s %s}}", function, source)
}

// withAdvice ends the reason of a refusal with what to do.
func (e *escaper) withAdvice(text string, p *piece) string {
	switch write := e.advice(text, p); {
	case write == "":
		return p.reason
	case strings.HasPrefix(write, "{{raw "):
		return p.reason + "; write it in the template, or " + write + " for text that you trust"
	default:
		return p.reason + "; write " + write + " if its words are meant to be several"
	}
}

// action is what is known of an action of a template beside its place.
type action struct {
	source   string          // its pipeline, as it is written
	literals map[string]bool // the texts in it
}
