package haproxy_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

// Which words a version takes for a server that is added at run time is what the program says, word by word.
func TestServerKeywordsAgreeWithHAProxy(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		version, err := haproxy.ReadVersion(t.Context(), h.Path, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := session(t, h)
		table := haproxy.KeywordsOf(version)
		listed, answered := table.WithHelp(do(t, s, haproxy.Command{Line: haproxy.HelpOnServers})[0].Text)
		if answered != version.AtLeast(3, 2) {
			t.Errorf("%q is answered: %v", haproxy.HelpOnServers, answered)
		}
		for i, word := range slices.Sorted(maps.Keys(table)) {
			// A name and, where it is not the word itself, an id of its own: 2.6 does not delete at once.
			line := fmt.Sprintf("add server be/x%d 127.0.0.1:1 %s%s", i, word, strings.Repeat(" 1", table[word].Args))
			if word != "id" {
				line += fmt.Sprintf(" id %d", 100+i)
			}
			text := do(t, s, haproxy.Command{Line: line})[0].Text
			taken := !strings.Contains(text, "not accepted for dynamic server") && !strings.Contains(text, "unknown keyword")
			if answered && listed[word].Dynamic != taken {
				t.Errorf("%s: listed %v, and the answer to it is %q", word, listed[word].Dynamic, text)
			}
			// These two are taken and mean something else than in a file, or need another server: the planner knows them.
			if word != "enabled" && word != "disabled" && word != "track" && table[word].Dynamic != taken {
				t.Errorf("%s: in the table %v, and the answer to it is %q", word, table[word].Dynamic, text)
			}
		}
	})
}

func TestServerKeywordsFromAnAnswer(t *testing.T) {
	table := haproxy.ServerKeywords{"weight": {1, true}, "check": {0, true}, "cookie": {1, true}, "npn": {1, false}}
	const answer = "List of keywords supported for dynamic server:\nweight\ncheck\nnpn\nnew-one\n"
	listed, ok := table.WithHelp(answer)
	want := haproxy.ServerKeywords{"weight": {1, true}, "check": {0, true}, "cookie": {1, false}, "npn": {1, true}}
	if !ok || !maps.Equal(listed, want) {
		t.Errorf("got %v, %v; want %v", listed, ok, want)
	}
	for _, other := range []string{"", "Require 'backend/server'.", "weight\ncheck\n", "Keywords:\nweight\n", "Unknown command: 'add server'\nweight:\ncheck"} {
		if listed, ok := table.WithHelp(other); ok || !maps.Equal(listed, table) {
			t.Errorf("%q is taken for a list: %v", other, listed)
		}
	}
}
