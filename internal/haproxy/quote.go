package haproxy

import "strings"

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
