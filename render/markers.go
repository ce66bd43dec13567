package render

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// In rendered text a value is a mark until the text is escaped: a marker byte and the index of the value. So the bytes of a
// value are never mistaken for text of the template. UTF-8 text contains no marker byte.
const (
	memoMarker  = '\xfd'
	valueMarker = '\xfe'
	lineMarker  = '\xff'
	markBytes   = 6
)

func isMarker(b byte) bool { return b >= 0xfd }

// firstMarker returns the index of the first marker byte, or -1.
func firstMarker(text string) int {
	for i := range len(text) {
		if isMarker(text[i]) {
			return i
		}
	}
	return -1
}

// markText returns a mark. The index is encoded in bytes that are neither markers nor part of any file's syntax.
func markText(marker byte, index int) string {
	return string([]byte{marker, 0x80 + byte(index>>24&63), 0x80 + byte(index>>18&63), 0x80 + byte(index>>12&63), 0x80 + byte(index>>6&63), 0x80 + byte(index&63)})
}

func markIndex(mark string) int {
	n := 0
	for i := 1; i < markBytes; i++ {
		n = n<<6 | int(mark[i]-0x80)
	}
	return n
}

// nuncio's own functions return these types for more than a value. Other functions do not accept them as strings; if one
// formats them with fmt, its output becomes invalid on purpose.
type (
	includedText string // text of a template: its literal parts are trusted, its values are marked
	memoText     string
	rawText      struct{ text string }
	quoted       struct {
		value  any
		format bool
	}
	void struct{}
)

// invalid is text that no place accepts.
const invalid = "\xff"

// Format makes fmt print an invalid value instead of marked text.
func (includedText) Format(f fmt.State, _ rune) { fmt.Fprint(f, invalid) }

// Format makes fmt print an invalid value instead of marked text.
func (memoText) Format(f fmt.State, _ rune) { fmt.Fprint(f, invalid) }

// Format makes fmt print an invalid value instead of unescaped text.
func (rawText) Format(f fmt.State, _ rune) { fmt.Fprint(f, invalid) }

// Format prints the value itself: quoting is done when it is printed into the file.
func (q quoted) Format(f fmt.State, _ rune) { fmt.Fprint(f, q.value) }

// mark is the last function in the pipeline of every action. It stores the value and returns a mark for it.
func (t *Templates) mark(action int, value any) (string, error) {
	r := t.run
	format := false
	for q, ok := value.(quoted); ok; q, ok = value.(quoted) {
		value, format = q.value, format || q.format
	}
	var text string
	switch v := value.(type) {
	case includedText:
		return string(v), nil
	case void:
		return "", nil
	case memoText:
		r.memos[markIndex(string(v))].action = action
		return string(v), nil
	case rawText:
		return t.asWritten(action, v)
	}
	if t.opts.TrustValues {
		return t.trust(action, value)
	}
	switch v := value.(type) {
	case severalWords:
		return t.markWords(action, v)
	case string:
		text = v
	case int:
		text = strconv.Itoa(v)
	default:
		var err error
		if text, err = printable(value); err != nil {
			// In a comment it may be printed as confd prints it; elsewhere the error stands.
			shown, ok := confdText(value)
			if !ok {
				return "", &fault{t.where[action], err.Error()}
			}
			return t.printed(printed{value: shown, action: action, refused: err.Error()})
		}
	}
	if t.confd != nil && t.actions[action].literals[text] {
		return t.asWritten(action, rawText{text})
	}
	return t.printed(printed{value: text, action: action, format: format})
}

// asWritten returns text that is not escaped, with marks of its origin.
func (t *Templates) asWritten(action int, v rawText) (string, error) {
	if firstMarker(v.text) >= 0 {
		return "", &fault{t.where[action], "raw: the value " + shorten(v.text) + " is not UTF-8 text, or an included text was passed to it"}
	}
	if t.opts.Origins {
		mark := markText(lineMarker, action)
		return mark + strings.ReplaceAll(v.text, "\n", "\n"+mark), nil
	}
	return v.text, nil
}

// printable returns the text of a single value. A list or a service is an error: its text would be memory addresses or
// Go's notation.
func printable(value any) (string, error) {
	if value == nil {
		return "", errors.New("there is no value to print: the field or key is missing; print a default instead, as in {{ .port | default 80 }}")
	}
	switch v := value.(type) {
	case []byte:
		return string(v), nil
	case fmt.Stringer, error:
		return fmt.Sprint(v), nil
	}
	v := reflect.ValueOf(value)
	for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
		if v.IsNil() {
			return "", errors.New("there is no value to print: it is nil")
		}
		v = v.Elem()
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map, reflect.Slice, reflect.Array, reflect.Func, reflect.Chan, reflect.UnsafePointer:
		return "", fmt.Errorf("a value of type %s cannot be printed: print one of its fields, or range over it", strings.TrimPrefix(fmt.Sprintf("%T", value), "*"))
	}
	return fmt.Sprint(v.Interface()), nil
}
