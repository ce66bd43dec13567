package catalog

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxStringBytes is the longest string of a record: a tag, or the name or the value of a meta entry.
const MaxStringBytes = 4 << 10

const (
	quotedBytes  = 64  // of a value inside a reason
	excerptBytes = 200 // of a value beside a reason
)

// checkText refuses every control character, which could end a line or a word of the configuration (the marker bytes of
// the renderer are among them), and invalid UTF-8.
func checkText(what, s string) error {
	if len(s) > MaxStringBytes {
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", what, len(s), MaxStringBytes)
	}
	for _, r := range s {
		if r == utf8.RuneError {
			return invalid(what, s, "is not valid UTF-8")
		}
		if unicode.IsControl(r) {
			return invalid(what, s, fmt.Sprintf("holds the control character %U; line breaks, tabs and the like are not allowed", r))
		}
	}
	return nil
}

// quote returns the beginning of a piece of a record, in quotes and on one line.
func quote(s string) string {
	if len(s) > quotedBytes {
		return strconv.Quote(cut(s, quotedBytes)) + "..."
	}
	return strconv.Quote(s)
}

// excerpt returns the beginning of a value without quotes, on one line.
func excerpt(s string) string {
	var b strings.Builder
	for _, r := range cut(s, excerptBytes) {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		q := strconv.QuoteRune(r)
		b.WriteString(q[1 : len(q)-1])
	}
	if len(s) > excerptBytes {
		b.WriteString("...")
	}
	return b.String()
}

// cut returns at most the first n bytes of s without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
