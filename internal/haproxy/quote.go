package haproxy

import (
	"fmt"
	"strings"
)

// Quote writes a value as one word that HAProxy reads back as exactly that value: bare where every byte is
// harmless, in weak quotes otherwise. It refuses NUL, which ends a line, and the empty value, after which
// HAProxy 2.6 and 3.0 drop the rest of the line without a word. It cannot make an address safe: HAProxy
// expands variables in addresses a second time, whatever their quoting, so check those with CheckAddress.
func Quote(value string) (string, error) {
	if value == "" {
		return "", fmt.Errorf("an empty value: HAProxy would drop the rest of the line")
	}
	if i := strings.IndexByte(value, 0); i >= 0 {
		return "", fmt.Errorf("a NUL byte at position %d: HAProxy cannot read one", i+1)
	}
	if IsBare(value) {
		return value, nil
	}
	return `"` + EscapeWeak(value) + `"`, nil
}

// QuoteLogFormat is Quote for arguments that HAProxy reads as a log-format string, where "%" begins a
// variable or a sample expression: it doubles each.
func QuoteLogFormat(value string) (string, error) {
	return Quote(DoublePercent(value))
}

// IsBare says whether a value, at least one byte long, needs no quotes anywhere in a configuration.
func IsBare(value string) bool {
	for i := range len(value) {
		if !bare[value[i]] {
			return false
		}
	}
	return value != ""
}

// EscapeWeak escapes a value for a place that is inside weak quotes already. It adds no quotes.
func EscapeWeak(value string) string {
	if !strings.ContainsAny(value, "\\\"$\n\r") {
		return value
	}
	return weakEscapes.Replace(value)
}

// DoublePercent writes "%" as log-format strings spell the character.
func DoublePercent(value string) string { return strings.ReplaceAll(value, "%", "%%") }

var weakEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "\n", `\n`, "\r", `\r`)

var bare = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = isNameStart(b) || b >= '0' && b <= '9' || strings.IndexByte("-.:/,=+@%*?&;<>()[]{}|~!^", b) >= 0
	}
	return t
}()
