package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// Model is a configuration cut into sections, as far as the Runtime API path needs it. It is immutable. Models of
// successive texts share the sections that did not change, so that a small change costs little more than a
// comparison of bytes.
type Model struct {
	text     haproxy.Text
	sections []*section
	blocked  string // why no other text can be reached from this one at run time; empty if nothing speaks against it
}

// section is one section of the text. Its server lines are split into words only when they have changed: there can
// be a hundred thousand of them.
type section struct {
	kind, name, from string
	text             string // from the first line to the line before the next section
	structure        string // all words of all lines but the server lines of a proxy
	defaults         []directive
	settings         map[string]string // balance, hash-type, retries and "timeout connect" of this section alone
	dynamicBlocked   string            // why servers of this section cannot be changed at run time; empty if they can
	references       []string          // servers that lines of it name
	backends         []string          // backends that lines of it name; anyBackend if that cannot be told
	maps, acls       []string          // files that are loaded as such
	blocked          string
}

// directive is a default-server line.
type directive struct {
	line  int // within the section, from 0
	words []haproxy.Word
}

// hasServers reports whether "server" lines of the section are servers of a proxy: elsewhere they name peers and log
// targets.
func (s *section) hasServers() bool { return s.kind == "backend" || s.kind == "listen" }

// NewModel reads a text. The error is that of its first line that does not lex.
func NewModel(text haproxy.Text) (*Model, error) {
	m := &Model{text: text}
	for rest := text.String(); rest != ""; {
		end := nextSection(rest)
		s, err := newSection(rest[:end])
		if err != nil {
			return nil, err
		}
		m.sections = append(m.sections, s)
		m.blocked = cmp.Or(m.blocked, s.blocked)
		rest = rest[end:]
	}
	return m, nil
}

// nextSection is where the section after the first one of a text begins.
func nextSection(text string) int {
	pos := 0
	for line := range strings.Lines(text) {
		if pos > 0 && beginsSection(line) {
			return pos
		}
		pos += len(line)
	}
	return pos
}

// beginsSection looks at the first word of a line.
func beginsSection(line string) bool {
	line = strings.TrimLeft(line, " \t\v\f\r")
	if line == "" || line[0] == '#' || strings.HasPrefix(line, "server ") {
		return false
	}
	word := line
	if i := strings.IndexAny(line, " \t\v\f\r\n#"); i >= 0 {
		word = line[:i]
	}
	if !strings.ContainsAny(word, "\\\"'") {
		return haproxy.IsSection(word)
	}
	words, err := haproxy.AppendWords(nil, strings.TrimSuffix(line, "\n"), nil)
	return err == nil && len(words) > 0 && haproxy.IsSection(words[0].Text)
}

func newSection(text string) (*section, error) {
	s := &section{text: text}
	var structure strings.Builder
	var words []haproxy.Word
	n := 0
	for line := range strings.Lines(text) {
		n++
		if isPlainServer(line) && s.hasServers() {
			s.server(line)
			continue
		}
		var err error
		words, err = haproxy.AppendWords(words[:0], strings.TrimSuffix(line, "\n"), nil)
		if err != nil {
			return nil, fmt.Errorf("line %d of section %s %s: %w", n, s.kind, s.name, err)
		}
		if len(words) == 0 {
			continue
		}
		if s.kind == "" && structure.Len() == 0 {
			s.head(words)
		}
		if words[0].Text == "server" && s.hasServers() {
			s.server(line)
			continue
		}
		for _, w := range words {
			if w.Expanded { // the same text means the same as long as the environment is the same
				w.Text = "\x00" + line[w.Start:w.End]
			}
			structure.WriteString(w.Text)
			structure.WriteByte('\n')
		}
		structure.WriteByte('\n')
		s.line(n-1, line, words)
	}
	s.structure = structure.String()
	return s, nil
}

// isPlainServer finds the usual server line without lexing it.
func isPlainServer(line string) bool {
	rest, ok := strings.CutPrefix(strings.TrimLeft(line, " \t"), "server")
	return ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t')
}

func (s *section) head(words []haproxy.Word) {
	if !haproxy.IsSection(words[0].Text) {
		return
	}
	found := haproxy.Sections([]haproxy.Line{{Words: words}})[0]
	s.kind, s.name, s.from = found.Kind, found.Name, found.From
}

// server notes what a server line refers to, without reading all of it.
func (s *section) server(line string) {
	if strings.Contains(line, "track") {
		words, err := haproxy.AppendWords(nil, strings.TrimSuffix(line, "\n"), nil)
		if err != nil {
			return // a text that does not lex never runs
		}
		for i, w := range words[:len(words)-1] {
			if w.Text == "track" {
				s.addReference(words[i+1].Text)
			}
		}
	}
}

// line reads a line that is not a server line.
func (s *section) line(n int, text string, words []haproxy.Word) {
	key := words[0].Text
	for _, w := range words {
		if w.Expanded && strings.Contains(text[w.Start:w.End], ".LINE") {
			s.blocked = "${.LINE} changes its meaning with every line that comes or goes"
		}
	}
	if strings.HasPrefix(key, ".") {
		s.blocked = fmt.Sprintf("the line %q makes other lines depend on a condition", key)
	}
	switch key {
	case "default-server":
		s.defaults = append(s.defaults, directive{line: n, words: slices.Clone(words[1:])})
	case "balance", "hash-type", "retries", "mode":
		s.set(key, words[1:])
	case "timeout":
		if len(words) > 2 && words[1].Text == "connect" {
			s.set("timeout connect", words[2:])
		}
	case "server-template", "server-state-file", "load-server-state-from-file":
		s.dynamicBlocked = fmt.Sprintf("the section has a line %q", key)
	case "cookie":
		if slices.ContainsFunc(words, func(w haproxy.Word) bool { return w.Text == "dynamic" }) {
			s.set("dynamic cookies", nil)
		}
	case "option":
		if len(words) > 1 && words[1].Text == "allbackups" {
			s.set("allbackups", nil)
		}
	case "use-server":
		if len(words) > 1 {
			s.addReference(words[1].Text)
		}
	case "use_backend", "default_backend":
		s.addBackend(words[1:])
	case "filter":
		if len(words) > 1 && words[1].Text == "spoe" { // its own file names a backend
			s.backends = append(s.backends, anyBackend)
		}
	}
	s.words(words)
}

// set notes the first argument of a setting: none that follows matters here.
func (s *section) set(key string, arguments []haproxy.Word) {
	if s.settings == nil {
		s.settings = map[string]string{}
	}
	s.settings[key] = ""
	if len(arguments) > 0 {
		s.settings[key] = arguments[0].Text
	}
}

// words finds what the words of a line refer to: servers, maps and lists of patterns.
func (s *section) words(words []haproxy.Word) {
	for i, w := range words {
		switch {
		case w.Text == "-f" && i+1 < len(words):
			s.acls = append(s.acls, words[i+1].Text)
		case w.Text == "table", w.Text == "scope":
			s.addBackend(words[i+1:])
		}
		for rest := w.Text; ; {
			name, arguments, ok := strings.Cut(rest, "(")
			if !ok {
				break
			}
			name = name[strings.LastIndexFunc(name, func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') })+1:]
			first := arguments
			if end := strings.IndexAny(arguments, ",)"); end >= 0 {
				first = arguments[:end]
			}
			switch {
			case name == "map" || strings.HasPrefix(name, "map_"):
				s.maps = append(s.maps, first)
			case strings.HasPrefix(name, "srv_") || name == "srv":
				s.addReference(first)
			case backendFetch.MatchString(name):
				s.addFetched(arguments)
			}
			rest = arguments
		}
	}
}

// addReference notes that something other than traffic points to a server.
func (s *section) addReference(target string) {
	if !strings.Contains(target, "/") {
		target = s.name + "/" + target
	}
	s.references = append(s.references, target)
}

// defaultsChain returns the defaults section that applies to section i, the one that applies to that, and so on.
func (m *Model) defaultsChain(i int) []*section {
	var chain []*section
	from := m.sections[i].from
	for j := i - 1; j >= 0; j-- {
		d := m.sections[j]
		if d.kind != "defaults" || from != "" && d.name != from {
			continue
		}
		chain = append(chain, d)
		if from = d.from; from == "" { // a defaults section inherits from an earlier one only if it names it
			break
		}
	}
	return chain
}

// setting finds the value of a directive that the section has itself or inherits.
func (m *Model) setting(i int, key string) string {
	value, _ := m.find(i, key)
	return value
}

func (m *Model) find(i int, key string) (value string, found bool) {
	for _, s := range append([]*section{m.sections[i]}, m.defaultsChain(i)...) {
		if value, found = s.settings[key]; found {
			break
		}
	}
	return value, found
}

// referenced reports whether anything but traffic points to a server.
func (m *Model) referenced(backend, server string) bool {
	target := backend + "/" + server
	return slices.ContainsFunc(m.sections, func(s *section) bool { return slices.Contains(s.references, target) })
}

func title(s *section) string { return strings.TrimSpace(s.kind + " " + s.name) }
