package haproxy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
)

func env(name string) (string, bool) {
	v, ok := map[string]string{"HOME": "/root", "LIST": "a b  c", "EMPTY": ""}[name]
	return v, ok
}

func texts(lines []haproxy.Line) [][]string {
	var all [][]string
	for _, l := range lines {
		var words []string
		for _, w := range l.Words {
			words = append(words, w.Text)
		}
		all = append(all, words)
	}
	return all
}

func TestLex(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []string
	}{
		{`server a 127.0.0.1:80 check`, []string{"server", "a", "127.0.0.1:80", "check"}},
		{"\t bind\v:80\f \r", []string{"bind", ":80"}},
		{"a \r b\r c \"", []string{"a", "b"}},
		{`a b#c`, []string{"a", "b"}},
		{`a "b#c" '#d'`, []string{"a", "b#c", "#d"}},
		{`a\ b \# \\ \" \' \n\r\t\x41`, []string{"a b", "#", `\`, `"`, `'`, "\n\r\tA"}},
		{`\q $HOME \$HOME`, []string{`\q`, "$HOME", `\$HOME`}},
		{`"\\\"\$\n\x41\q'" x`, []string{"\\\"$\nA\\q'", "x"}},
		{`'\n$HOME"' x`, []string{`\n$HOME"`, "x"}},
		{`"$HOME/x" "${HOME}x" "${NONE-y z}" "${HOME-y}"`, []string{"/root/x", "/rootx", "y z", "/root"}},
		{`x"${LIST[*]}"y`, []string{"xa", "b", "cy"}},
		{`"$EMPTY" a`, []string{"", "a"}},
		{`a"b"'c'd`, []string{"abcd"}},
		{`"${.LINE}" "${.FILE}"`, []string{"1", "haproxy.cfg"}},
		{"caf\xc3\xa9 \xa0x", []string{"caf\xc3\xa9", "\xa0x"}},
	} {
		lines, err := haproxy.Lex([]byte(tt.text+"\n"), env)
		if err != nil {
			t.Errorf("Lex(%q): %v", tt.text, err)
			continue
		}
		if diff := cmp.Diff([][]string{tt.want}, texts(lines)); diff != "" {
			t.Errorf("Lex(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
}

func TestLexErrors(t *testing.T) {
	many := strings.TrimSpace(strings.Repeat("w ", haproxy.MaxWords))
	for _, tt := range []struct {
		name, text string
		line, col  int
	}{
		{"open weak quote", "a\n b \"c\nd\n", 2, 4},
		{"open strong quote", "a 'b\n", 1, 3},
		{"no last newline", "a\nb", 2, 2},
		{"NUL", "a \x00b\n", 1, 3},
		{"bad hex", `a \x4g` + "\n", 1, 3},
		{"short hex", `a \x4` + "\n", 1, 3},
		{"too many words", many + " x\n", 1, 129},
		{"no variable name", `"$ "` + "\n", 1, 2},
		{"no closing brace", `"${HOME" x` + "\n", 1, 2},
		{"bad expansion", `"${HOME[1]}"` + "\n", 1, 2},
		{"unknown pseudo-variable", `"${.NOPE}"` + "\n", 1, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := haproxy.Lex([]byte(tt.text), env)
			var lex *haproxy.LexError
			if !errors.As(err, &lex) {
				t.Fatalf("error %v, want a *LexError", err)
			}
			if lex.Line != tt.line || lex.Column != tt.col || lex.Reason == "" {
				t.Errorf("got %v, want a reason at %d:%d", lex, tt.line, tt.col)
			}
		})
	}
	if _, err := haproxy.Lex([]byte(many+"\n"), nil); err != nil {
		t.Errorf("%d words: %v", haproxy.MaxWords, err)
	}
	if lines, err := haproxy.Lex(nil, nil); err != nil || len(lines) != 0 {
		t.Errorf("empty text: %v, %v", lines, err)
	}
}

func TestLexPositions(t *testing.T) {
	text := "# c\n\n bind \"$HOME\":80 x\nb\n"
	lines, err := haproxy.Lex([]byte(text), env)
	if err != nil || len(lines) != 2 {
		t.Fatalf("%v, %v", lines, err)
	}
	l := lines[0]
	if l.Number != 3 || l.Offset != 5 {
		t.Errorf("line: %+v", l)
	}
	w := l.Words[1]
	if got := text[w.Start:w.End]; got != `"$HOME":80` || !w.Expanded || l.Words[0].Expanded {
		t.Errorf("word: %+v, raw %q", w, got)
	}
}

func TestLexFollowsSetenv(t *testing.T) {
	text := "global\n setenv A 1\n presetenv A 2\n presetenv B \"$HOME\"\n unsetenv LIST\n" +
		"defaults\n setenv A 3\nfrontend f\n bind \"$A$B$LIST\"\n"
	lines, err := haproxy.Lex([]byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines[len(lines)-1].Words[1].Text, "1/root"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	oneByOne(t, text, lines, nil)
}

// oneByOne wants the lines and the error of Lex when each line is forgotten before the next one is read.
func oneByOne(t *testing.T, text string, want []haproxy.Line, wantErr error) {
	t.Helper()
	var got []haproxy.Line
	err := haproxy.EachLine(text, env, func(l haproxy.Line) bool {
		l.Words = slices.Clone(l.Words)
		got = append(got, l)
		return true
	})
	if diff := cmp.Diff(want, got); diff != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Errorf("EachLine of %q: error %v, want %v; lines (-of Lex +got):\n%s", text, err, wantErr, diff)
	}
	if len(want) == 0 {
		return
	}
	if err := haproxy.EachLine(text, env, func(haproxy.Line) bool { return false }); err != nil {
		t.Errorf("EachLine of %q goes on: %v", text, err)
	}
}

func TestSections(t *testing.T) {
	text := "  x\nglobal\n maxconn 1\ndefaults from a\ndefaults d\n\nbackend b from d # c\n server s 127.0.0.1:1\n # c\n server t 127.0.0.1:2\nbackend from\n"
	lines, err := haproxy.Lex([]byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	type section struct {
		Kind, Name, From string
		Lines            int
	}
	var got []section
	for _, s := range haproxy.Sections(lines) {
		got = append(got, section{s.Kind, s.Name, s.From, len(s.Lines)})
	}
	want := []section{{"", "", "", 1}, {"global", "", "", 1}, {"defaults", "", "a", 0}, {"defaults", "d", "", 0}, {"backend", "b", "d", 2}, {"backend", "from", "", 0}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	last := haproxy.Sections(lines)[4]
	if last.Head.Number != 7 || last.Lines[1].Words[1].Text != "t" {
		t.Errorf("backend: %+v", last)
	}
}

func FuzzLex(f *testing.F) {
	for _, s := range []string{"a \"b\n", "server a b:1 \\x41\n", `"${A[*]-x}` + "\n", "a\x00\n", "x", "global\nsetenv B \"$HOME\"\nx y z\nx \"$B\"\ny"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		start := time.Now()
		lines, err := haproxy.Lex(text, env)
		for _, l := range lines {
			if len(l.Words) == 0 || len(l.Words) > haproxy.MaxWords || l.Words[len(l.Words)-1].End > len(text) {
				t.Fatalf("line %+v", l)
			}
			for _, w := range l.Words {
				if w.Start < l.Offset || w.End < w.Start || strings.Contains(string(text[l.Offset:w.End]), "\n") {
					t.Fatalf("word %+v of line %+v", w, l)
				}
			}
		}
		oneByOne(t, string(text), lines, err)
		if err == nil && len(text) > 0 && text[len(text)-1] != '\n' {
			t.Fatal("no error for a text without a last newline")
		}
		if time.Since(start) > 10*time.Second {
			t.Fatal("too slow")
		}
	})
}

func BenchmarkLex(b *testing.B) {
	text := []byte(strings.Repeat("    server web-0123456789 10.132.233.107:49153 id 12345 weight 100 check\n", 10000))
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := haproxy.Lex(text, nil); err != nil {
			b.Fatal(err)
		}
	}
}
