package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	ast "text/template/parse"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
	"nuncio/render"
)

// origin shows which template line made each line of haproxy.cfg. It renders a second time, with templates that put before
// every line a comment which names its place, and takes the comments out again.
func (f *renderFlags) origin(tree map[string]string, snap *catalog.Snapshot, plain haproxy.Files, s *streams) error {
	marked := map[string]string{}
	for name, text := range tree {
		marked[name] = text
		if strings.HasSuffix(name, ".tmpl") {
			annotated, err := annotate(name, text)
			if err != nil {
				return refused(err)
			}
			marked[name] = annotated
		}
	}
	templates, err := render.New(marked, f.options(s))
	if err != nil {
		return refused(err)
	}
	result, err := templates.Render(snap)
	if err != nil {
		return refused(err)
	}
	var places []string
	var text bytes.Buffer
	place, width := "", 0
	for line := range strings.Lines(string(result.Files.Config())) {
		if m := placeLine.FindStringSubmatch(line); m != nil {
			place = m[1]
			continue
		}
		places, width = append(places, place), max(width, len(place))
		text.WriteString(line)
		place = ""
	}
	if !bytes.Equal(text.Bytes(), plain.Config()) {
		return refused(errors.New("the origin of the lines cannot be told: a template reads its own output, or a line ends in a backslash"))
	}
	i := 0
	for line := range strings.Lines(text.String()) {
		fmt.Fprintf(s.out, "%-*s | %s", width, places[i], line)
		i++
	}
	return nil
}

var placeLine = regexp.MustCompile(`^#@(.+:\d+)@\n$`)

// annotate writes a template again with a comment before every line of text.
func annotate(name, text string) (string, error) {
	tree := ast.New(name)
	tree.Mode = ast.SkipFuncCheck
	trees := map[string]*ast.Tree{}
	if _, err := tree.Parse(text, "", "", trees); err != nil {
		return "", err
	}
	var b strings.Builder
	m := marker{name: name, text: text, worded: map[int]bool{}}
	for _, t := range trees {
		m.walk(t.Root, m.note)
	}
	for _, t := range trees {
		m.walk(t.Root, m.mark)
	}
	for _, define := range slices.Sorted(maps.Keys(trees)) {
		if define != name {
			fmt.Fprintf(&b, "{{define %q}}%s{{end}}", define, trees[define].Root)
		}
	}
	if own, ok := trees[name]; ok {
		b.WriteString(own.Root.String())
	}
	return b.String(), nil
}

// marker works on one template file.
type marker struct {
	name, text string
	worded     map[int]bool // lines that have text of their own, beside what actions print
}

func (m *marker) walk(list *ast.ListNode, visit func(n *ast.TextNode, line int)) {
	if list == nil {
		return
	}
	for _, node := range list.Nodes {
		switch n := node.(type) {
		case *ast.TextNode:
			visit(n, 1+strings.Count(m.text[:n.Pos], "\n"))
		case *ast.IfNode:
			m.walk(n.List, visit)
			m.walk(n.ElseList, visit)
		case *ast.RangeNode:
			m.walk(n.List, visit)
			m.walk(n.ElseList, visit)
		case *ast.WithNode:
			m.walk(n.List, visit)
			m.walk(n.ElseList, visit)
		}
	}
}

func (m *marker) note(n *ast.TextNode, line int) {
	for part := range bytes.Lines(n.Text) {
		if len(bytes.TrimSpace(part)) > 0 {
			m.worded[line] = true
		}
		line++
	}
}

// mark leaves lines alone that are all action: what they print has lines, and places, of its own. Only behind a line break
// is it certain that the place begins a line.
func (m *marker) mark(n *ast.TextNode, line int) {
	var out []byte
	for part := range bytes.Lines(n.Text) {
		begins := len(out) > 0 || n.Pos == 0
		if begins && m.worded[line] && len(bytes.TrimRight(part, "\n")) > 0 {
			out = fmt.Appendf(out, "#@%s:%d@\n", m.name, line)
		}
		out = append(out, part...)
		line++
	}
	n.Text = out
}
