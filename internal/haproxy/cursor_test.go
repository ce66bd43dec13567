package haproxy_test

import (
	"strings"
	"testing"

	"nuncio/internal/haproxy"
)

// A cursor is right if a value escaped for the place it names is read back by Lex as part of one word.
func TestCursorNamesThePlaceThatLexSees(t *testing.T) {
	const value = `v"'#$\ x`
	escaped := map[haproxy.Quoting]string{
		haproxy.Bare:   `"` + haproxy.EscapeWeak(value) + `"`,
		haproxy.Weak:   haproxy.EscapeWeak(value),
		haproxy.Strong: strings.ReplaceAll(value, "'", `'\''`),
	}
	alphabet := []string{"a", "b", "\\", `"`, `"`, "'", "'", "$", "{", "}", "HOME", "${HOME}", "-", "#", "n", "x41", "x", " ", "\t", "\r", "."}
	tried := make(map[haproxy.Quoting]int)
	for _, before := range fragments(20000, alphabet) {
		var c haproxy.Cursor
		c.Feed(before)
		if c.Open() {
			continue
		}
		closing := map[haproxy.Quoting]string{haproxy.Weak: `"`, haproxy.Strong: `'`}[c.Quoting()]
		if c.Quoting() == haproxy.Comment {
			with, err1 := haproxy.AppendWords(nil, before+" "+value, nil)
			without, err2 := haproxy.AppendWords(nil, before, nil)
			if (err1 == nil) != (err2 == nil) || len(with) != len(without) {
				t.Errorf("%q: called a comment, but text behind it counts", before)
			}
			tried[haproxy.Comment]++
			continue
		}
		if _, err := haproxy.AppendWords(nil, before+closing, nil); err != nil {
			continue // a fault of the text before the place
		}
		words, err := haproxy.AppendWords(nil, before+escaped[c.Quoting()]+closing, nil)
		if err != nil || len(words) == 0 || !strings.HasSuffix(words[len(words)-1].Text, value) {
			t.Errorf("%q: place %v: %v, %v", before, c.Quoting(), words, err)
		}
		tried[c.Quoting()]++
	}
	for q, n := range tried {
		if n < 500 {
			t.Errorf("place %v tried %d times only", q, n)
		}
	}
}

func TestCursorKnowsWhatIsOpen(t *testing.T) {
	for text, open := range map[string]bool{
		`a\`: true, `a\\`: false, `"\`: true, `\x4`: true, `\x41`: false, `"$`: true, `"$A`: true, `"$A `: false, `"${A`: true, `"${A-x`: true,
		`"${A}`: false, `'$A`: false, `$A`: false, `'\`: false, `"\$A`: false,
	} {
		var c haproxy.Cursor
		c.Feed(text)
		if c.Open() != open {
			t.Errorf("%s: open %v, want %v", text, c.Open(), open)
		}
	}
}
