package render

import (
	"fmt"
	"reflect"
	"strings"

	"nuncio/internal/haproxy"
)

// severalWords is the result of the template functions words and options.
type severalWords struct {
	value   any
	options bool
}

// Format prints the value itself: cutting it into words is done when it is printed into the file.
func (w severalWords) Format(f fmt.State, _ rune) { fmt.Fprint(f, w.value) }

// words prints each word of a value, or of a list, as a value of its own.
func words(value any) severalWords { return severalWords{value: value} }

// options is words for a place where HAProxy expects keywords: those of a fixed list may stand there, none of which can send
// traffic elsewhere or weaken a check of certificates.
func options(value any) severalWords { return severalWords{value: value, options: true} }

// safeOptions has the keywords that options may print, by the keyword of the line.
var safeOptions = map[string]map[string]bool{
	"server": serverSafe, "default-server": serverSafe, "server-template": serverSafe,
	"bind": {"backlog": true, "maxconn": true, "nice": true, "tfo": true, "defer-accept": true, "v4v6": true, "v6only": true, "tcp-ut": true, "mss": true},
}

var serverSafe = map[string]bool{
	"check": true, "backup": true, "disabled": true, "weight": true, "inter": true, "fastinter": true, "downinter": true, "rise": true, "fall": true,
	"maxconn": true, "minconn": true, "maxqueue": true, "slowstart": true, "port": true, "cookie": true, "no-check": true, "no-backup": true,
	"error-limit": true, "tcp-ut": true, "check-ssl": true, "track": true, "id": true, "enabled": true, "non-stick": true,
}

// isSafeOption reports whether a value is a keyword that options may print on this line.
func (l *line) isSafeOption(p *piece, word string) bool {
	return p.printed.options && p.value == word && safeOptions[l.words[0].Text][word]
}

// cut makes a value for each word.
func (p printed) cut(options bool) []printed {
	var all []printed
	for _, word := range strings.FieldsFunc(p.value, func(r rune) bool { return r == ' ' || r == '\t' }) {
		one := p
		one.value, one.options = word, options
		all = append(all, one)
	}
	return all
}

// markWords stores the words of a value and returns their marks.
func (t *Templates) markWords(action int, w severalWords) (string, error) {
	var text strings.Builder
	if v := reflect.ValueOf(w.value); v.IsValid() && v.Kind() == reflect.Slice && v.Type().Elem().Kind() != reflect.Uint8 {
		for i := range v.Len() {
			one, err := printable(v.Index(i).Interface())
			if err != nil {
				return "", &fault{t.where[action], err.Error()}
			}
			text.WriteString(one + " ")
		}
	} else {
		one, err := printable(w.value)
		if err != nil {
			return "", &fault{t.where[action], err.Error()}
		}
		text.WriteString(one)
	}
	all := printed{value: text.String(), action: action}.cut(w.options)
	if len(all) == 0 && !w.options {
		all = []printed{{action: action}}
	}
	marks := make([]string, len(all))
	for i, p := range all {
		mark, err := t.printed(p)
		if err != nil {
			return "", err
		}
		marks[i] = mark
	}
	return strings.Join(marks, " "), nil
}

// printed stores a value and returns its mark.
func (t *Templates) printed(p printed) (string, error) {
	r := t.run
	if err := r.grow(len(p.value) + markBytes); err != nil {
		return "", &fault{t.where[p.action], err.Error()}
	}
	r.printed = append(r.printed, p)
	return markText(valueMarker, len(r.printed)-1), nil
}

// isData reports whether the words of a value are as many pieces of data to HAProxy where the value stands: name and address of a
// server, patterns, arguments. Values of confd's users look so ("web1 192.0.2.1:80"), since confd prints them as they are. before
// and after are the words around the value. No word of the template may move to a place where it means something else.
func isData(before []string, words int, after []string) bool {
	last := len(after) == 0
	switch before[0] {
	case "server", "peer", "nameserver":
		return len(before) == 1 && words == 2 && (last || after[0][0] != valueMarker && haproxy.CheckAddress(after[0]) != nil)
	case "acl":
		return len(before) >= 3
	case "log", "balance":
		return last
	case "option":
		return last && len(before) >= 2 && before[1] == "httpchk"
	}
	return false
}

// config writes a line of a configuration. With confd's directory a value may be several words of data; whether each may stand in
// its place is decided as for any other value, and if one may not the value counts as a whole.
func (e *escaper) config(text string) (droppable bool) {
	l, kept := &e.line, len(e.printed)
	if cut, ok := e.cutData(text); ok {
		l.reset(cut, e.printed)
		e.printed = e.printed[:kept]
		if droppable = l.config(cut); l.refused() == nil {
			return droppable
		}
		l.reset(text, e.printed)
	}
	return l.config(text)
}

func (e *escaper) cutData(text string) (cut string, ok bool) {
	if e.t.confd == nil {
		return "", false
	}
	quotings, err := haproxy.AppendQuotings(nil, text, valueMarker)
	if err != nil {
		return "", false
	}
	var b strings.Builder
	for n, rest := 0, text; ; n++ {
		at := strings.IndexByte(rest, valueMarker)
		if at < 0 {
			b.WriteString(rest)
			return b.String(), ok
		}
		b.WriteString(rest[:at])
		mark, after := rest[at:at+markBytes], rest[at+markBytes:]
		all, before := e.printed[markIndex(mark)].cut(false), strings.Fields(b.String())
		alone := strings.TrimRight(b.String(), " \t") != b.String() && (after == "" || after[0] == ' ' || after[0] == '\t')
		if alone && quotings[n] == haproxy.Bare && len(all) > 1 && len(before) > 0 && isData(before, len(all), strings.Fields(after)) {
			mark, ok = e.marks(all), true
		}
		b.WriteString(mark)
		rest = after
	}
}

// marks adds values that only this line has.
func (e *escaper) marks(all []printed) string {
	marks := make([]string, len(all))
	for i, p := range all {
		marks[i] = markText(valueMarker, len(e.printed))
		e.printed = append(e.printed, p)
	}
	return strings.Join(marks, " ")
}
