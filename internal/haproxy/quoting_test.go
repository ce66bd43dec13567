package haproxy_test

import (
	"strings"
	"testing"

	"nuncio/internal/haproxy"
)

// A quoting is right if a value escaped for it is read back by Lex as part of one word.
func TestQuotingsAreThoseThatLexSees(t *testing.T) {
	const value = `v"'#$\ x`
	escaped := map[haproxy.Quoting]string{
		haproxy.Bare:   `"` + haproxy.EscapeWeak(value) + `"`,
		haproxy.Weak:   haproxy.EscapeWeak(value),
		haproxy.Strong: strings.ReplaceAll(value, "'", `'\''`),
	}
	alphabet := []string{"a", "b", "\\", `"`, `"`, "'", "'", "$", "{", "}", "HOME", "${HOME}", "-", "#", "n", "x41", "x", " ", "\t", "\r", "."}
	tried := make(map[haproxy.Quoting]int)
	for _, before := range fragments(20000, alphabet) {
		quotings, _ := haproxy.AppendQuotings(nil, before+"\xfe", 0xfe)
		if len(quotings) == 0 {
			continue
		}
		quoting := quotings[0]
		closing := map[haproxy.Quoting]string{haproxy.Weak: `"`, haproxy.Strong: `'`}[quoting]
		if quoting == haproxy.Comment {
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
		words, err := haproxy.AppendWords(nil, before+escaped[quoting]+closing, nil)
		if err != nil || len(words) == 0 || !strings.HasSuffix(words[len(words)-1].Text, value) {
			t.Errorf("%q: place %v: %v, %v", before, quoting, words, err)
		}
		tried[quoting]++
	}
	for q, n := range tried {
		if n < 500 {
			t.Errorf("place %v tried %d times only", q, n)
		}
	}
}

func TestAMarkerWithinAnEscapeOrAVariableIsAnError(t *testing.T) {
	for text, within := range map[string]bool{
		`a\`: true, `a\\`: false, `"\`: true, `\x4`: true, `\x41`: false, `"$`: true, `"$A`: true, `"$A `: false, `"${A`: true, `"${A-x`: true,
		`"${A}`: false, `'$A`: false, `$A`: false, `'\`: false, `"\$A`: false,
	} {
		quotings, err := haproxy.AppendQuotings(nil, text+"\xfe}", 0xfe)
		if (len(quotings) == 0) != within || within && err == nil {
			t.Errorf("%s: %d quotings, error %v; within: want %v", text, len(quotings), err, within)
		}
	}
}
