package render

import (
	"bytes"
	"strings"
	"text/template/parse"
)

// Origin is the place that a rendered line comes from: the template text that begins it, or the action that printed it.
// The zero value means unknown.
type Origin struct {
	Template string // name within the tree
	Line     int    // counted from 1
}

const noOrigin = -1

// markLines puts a mark in front of the text of each line, so that the escaper can tell where a line comes from. Blanks
// at the start of a line have none: an action or a template call may follow them, and then it makes the line.
func (c *compiler) markLines(n *parse.TextNode) {
	var out []byte
	at := int(n.Pos)
	for part := range bytes.Lines(n.Text) {
		if indent := len(part) - len(bytes.TrimLeft(part, " \t\r")); indent < len(part) {
			out = append(out, part[:indent]...)
			out = append(out, markText(lineMarker, c.number(parse.Pos(at+indent)))...)
			out = append(out, part[indent:]...)
		} else {
			out = append(out, part...)
		}
		at += len(part)
	}
	n.Text = out
}

// takeOrigin removes the marks of markLines from a line and returns the number of the text or action that begins it.
func (e *escaper) takeOrigin(marked string) (line string, origin int) {
	if !e.t.opts.Origins {
		return marked, noOrigin
	}
	origin = noOrigin
	var b strings.Builder
	for {
		at := firstMarker(marked)
		if at < 0 {
			b.WriteString(marked)
			return b.String(), origin
		}
		first := origin
		switch index := markIndex(marked[at:]); marked[at] {
		case lineMarker:
			origin = index
		case valueMarker:
			origin = e.printed[index].action
		}
		if first != noOrigin {
			origin = first
		}
		b.WriteString(marked[:at])
		if marked[at] != lineMarker {
			b.WriteString(marked[at : at+markBytes])
		}
		marked = marked[at+markBytes:]
	}
}

// places returns the origins for the numbers of an escaped file.
func (t *Templates) places(numbers []int) []Origin {
	origins := make([]Origin, len(numbers))
	for i, n := range numbers {
		if n != noOrigin {
			origins[i] = Origin{t.where[n].file, t.where[n].line}
		}
	}
	return origins
}

func (t *Templates) originsOf(src source, made escaped) []Origin {
	if !src.isTemplate {
		return copied(src.name, t.tree[src.name])
	}
	return t.places(made.origins)
}

// copied returns the origins of a file that is not a template.
func copied(name, text string) []Origin {
	var origins []Origin
	for range strings.Lines(text) {
		origins = append(origins, Origin{name, len(origins) + 1})
	}
	return origins
}
