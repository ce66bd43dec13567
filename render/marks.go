package render

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Values travel through the rendered text as marks: a marker byte and the index of the value, so that nothing
// a value holds can be taken for text of the template, and the other way round. Marker bytes are ones that no
// UTF-8 text holds.
const (
	valueMarker = '\xfe'
	memoMarker  = '\xfd'
	markBytes   = 6
)

func isMarker(b byte) bool { return b >= 0xfd }

func hasMarker(s string) bool {
	for i := range len(s) {
		if isMarker(s[i]) {
			return true
		}
	}
	return false
}

// markText encodes an index in bytes that mean nothing to whoever scans for lines and marks.
func markText(marker byte, index int) string {
	return string([]byte{marker, 'A' + byte(index>>24&63), 'A' + byte(index>>18&63), 'A' + byte(index>>12&63), 'A' + byte(index>>6&63), 'A' + byte(index&63)})
}

func markIndex(mark string) int {
	n := 0
	for i := 1; i < markBytes; i++ {
		n = n<<6 | int(mark[i]-'A')
	}
	return n
}

// The types of what nuncio's own functions return where it is more than a value. Another function cannot
// take them for strings; where one prints them by fmt, they spoil its output on purpose.
type (
	includedText string // text of a template: its literal parts are trusted, its values are marked
	memoText     string
	rawText      struct{ text string }
	quoted       struct {
		value  any
		format bool
	}
	nothing struct{}
)

const spoiled = "\xff"

// Format makes fmt print a spoiled value instead of marked text.
func (includedText) Format(f fmt.State, _ rune) { fmt.Fprint(f, spoiled) }

// Format makes fmt print a spoiled value instead of marked text.
func (memoText) Format(f fmt.State, _ rune) { fmt.Fprint(f, spoiled) }

// Format makes fmt print a spoiled value instead of unescaped text.
func (rawText) Format(f fmt.State, _ rune) { fmt.Fprint(f, spoiled) }

// Format prints the value itself: quoting is done when it is printed into the file.
func (q quoted) Format(f fmt.State, _ rune) { fmt.Fprint(f, q.value) }

// mark is what every action of a template prints through.
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
	case memoText:
		return string(v), nil
	case rawText:
		if hasMarker(v.text) {
			return "", &fault{t.where[action], "raw: the value " + shorten(v.text) + " is not UTF-8 text, or an included text was passed to it"}
		}
		return v.text, nil
	case string:
		text = v
	case int:
		text = strconv.Itoa(v)
	default:
		var err error
		if text, err = printable(value); err != nil {
			return "", &fault{t.where[action], err.Error()}
		}
	}
	if err := r.grow(len(text) + markBytes); err != nil {
		return "", &fault{t.where[action], err.Error()}
	}
	r.spans = append(r.spans, span{value: text, action: action, format: format})
	return markText(valueMarker, len(r.spans)-1), nil
}

// printable gives the text of a single value. A list or a service has none: it would print memory addresses,
// or words that nobody meant.
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
