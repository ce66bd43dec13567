package status

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	"nuncio/internal/catalog"
)

// elsewhere stands for a value that nothing can be told of: a program may keep its passwords under the prefix, and what is
// no JSON has no names that would say which part is one.
const elsewhere = "[hidden; nuncio services shows it]"

// hideRecord makes a record that is left out fit for the listener.
func hideRecord(q catalog.Quarantined) Quarantined {
	object := strings.HasPrefix(strings.TrimSpace(q.Value), "{")
	return Quarantined{Key: q.Key, Reason: hideReason(q.Detail, object), Value: hideValue(q.Value)}
}

// hideValue keeps of a JSON object what would be shown of a valid record, and nothing of anything else. A long value has
// been cut by now, and so is no object any more.
func hideValue(value string) string {
	if value == "" {
		return ""
	}
	dec := json.NewDecoder(strings.NewReader(value))
	dec.UseNumber()
	var object map[string]any
	if dec.Decode(&object) != nil || dec.More() {
		return elsewhere
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // the page escapes
	if err := enc.Encode(hideIn(object)); err != nil {
		return elsewhere
	}
	return strings.TrimSpace(b.String())
}

func hideIn(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			if secret(key) {
				v[key] = hidden
			} else {
				v[key] = hideIn(v[key])
			}
		}
	case []any:
		for i := range v {
			v[i] = hideIn(v[i])
		}
	case string:
		return hideText(v)
	}
	return v
}

// login finds the name and the password in front of a host.
var login = regexp.MustCompile(`[^\s/@:]*:[^\s/@]+@`)

func hideText(s string) string { return login.ReplaceAllString(hideLine(s), hidden+"@") }

// quotedPiece finds what a reason quotes of the value, by the forms that package catalog has: a word for what it is, then
// the piece, perhaps cut. Names of keys and of members come in other forms.
var quotedPiece = regexp.MustCompile(`^(?:meta: )?(the value|host|port|state|weight|tags?|meta(?: name| value of "((?:[^"\\]|\\.)*)")?) ("(?:[^"\\]|\\.)*")(?:\.\.\.)?`)

// hideReason takes out of a reason what it quotes of a value, unless that is one plain field of a record: whoever has to
// put the record right sees what is wrong with it, and nobody sees a password that stands where a port belongs.
func hideReason(reason string, object bool) string {
	m := quotedPiece.FindStringSubmatchIndex(reason)
	if m == nil {
		return reason
	}
	what, named, piece := reason[m[2]:m[3]], "", reason[m[6]:m[7]]
	if m[4] >= 0 {
		named = reason[m[4]:m[5]]
	}
	whole := what == "the value" || what == "meta" || what == "tags"
	text, err := strconv.Unquote(piece)
	if err == nil && object && !whole && !secret(named) && !secret(text) && hideText(text) == text {
		return reason
	}
	return reason[:m[6]] + hidden + reason[m[1]:]
}
