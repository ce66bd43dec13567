package render

import (
	"fmt"
	"slices"
	"strings"
	"text/template/parse"

	"nuncio/internal/catalog"
)

// A change of one instance makes memo render its service again, where most of the work is the loop over all instances. So
// the body of a loop that uses nothing but its element becomes a template of its own, and for instances that have not changed
// its output of the last time is taken.

// bodyFunc takes the place of a loop's body.
const bodyFunc = "_nuncio_body"

// maxBodies is about how many outputs are kept: each takes about half a kilobyte.
const maxBodies = 20_000

// bodyKey identifies an output. An instance that has not changed keeps its pointer in the catalog.
type bodyKey struct {
	number   int
	instance *catalog.Instance
}

// body is the output for one instance.
type body struct {
	text    string // with marks
	first   int    // the index of its first mark
	printed []printed
}

// namedMemo tells which text of a service comes after which.
type namedMemo struct{ partial, file, service string }

func bodyName(number int) string { return fmt.Sprintf("%s_%d", bodyFunc, number) }

// isolate moves the body of a loop into a template of its own, if it depends on nothing but its element.
func (c *compiler) isolate(n *parse.RangeNode) error {
	if len(n.Pipe.Decl) > 0 || !isolatedList(n.List) {
		return nil
	}
	call := c.command(bodyFunc, n.Pos)
	call.Args = append(call.Args, &parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos})
	name := bodyName(len(c.where) - 1)
	tree := *c.current
	tree.Name, tree.Root = name, n.List
	if _, err := c.set.AddParseTree(name, &tree); err != nil {
		return err
	}
	pipe := &parse.PipeNode{NodeType: parse.NodePipe, Pos: n.Pos, Cmds: []*parse.CommandNode{call}}
	n.List = &parse.ListNode{NodeType: parse.NodeList, Pos: n.Pos, Nodes: []parse.Node{&parse.ActionNode{NodeType: parse.NodeAction, Pos: n.Pos, Pipe: pipe}}}
	return nil
}

// isolatedList reports whether nodes use no variable and no function that does more than return a value.
func isolatedList(list *parse.ListNode) bool {
	return list == nil || !slices.ContainsFunc(list.Nodes, func(n parse.Node) bool {
		switch n := n.(type) {
		case *parse.TextNode, *parse.CommentNode:
			return false
		case *parse.ActionNode:
			return !isolatedPipe(n.Pipe)
		case *parse.IfNode:
			return !isolatedPipe(n.Pipe) || !isolatedList(n.List) || !isolatedList(n.ElseList)
		case *parse.WithNode:
			return !isolatedPipe(n.Pipe) || !isolatedList(n.List) || !isolatedList(n.ElseList)
		}
		return true
	})
}

func isolatedPipe(p *parse.PipeNode) bool {
	return len(p.Decl) == 0 && !slices.ContainsFunc(p.Cmds, func(cmd *parse.CommandNode) bool {
		return slices.ContainsFunc(cmd.Args, func(arg parse.Node) bool { return !isolatedArgument(arg) })
	})
}

func isolatedArgument(arg parse.Node) bool {
	switch arg := arg.(type) {
	case *parse.VariableNode:
		return false
	case *parse.PipeNode:
		return isolatedPipe(arg)
	case *parse.ChainNode:
		return isolatedArgument(arg.Node)
	case *parse.IdentifierNode:
		return !slices.Contains([]string{"memo", "include", "textOf", "unmet", "incumbent"}, arg.Ident)
	}
	return true
}

// body renders the isolated body of a loop for an element.
func (t *Templates) body(number int, element any) (string, error) {
	r := t.run
	instance, ok := element.(*catalog.Instance)
	key := bodyKey{number, instance}
	if known, hit := r.known[key]; ok && hit {
		return r.replay(key, known)
	}
	first := len(r.printed)
	text, err := t.execute(bodyName(number), element)
	if err != nil {
		e := explain(t.tree, t.where[number].file, err) // here, where its place is known best
		e.Message = strings.Replace(e.Message, fmt.Sprintf("%q", bodyName(number)), fmt.Sprintf("%q", t.where[number].file), 1)
		return "", e
	}
	r.bytes -= len(text) // it counts once it is in the file
	if ok && r.bodies != nil {
		r.bodies[key] = body{text, first, slices.Clone(r.printed[first:])}
	}
	return text, nil
}

// replay prints an output of the last time again.
func (r *run) replay(key bodyKey, b body) (string, error) {
	first := len(r.printed)
	for _, p := range b.printed {
		if err := r.grow(len(p.value) + markBytes); err != nil {
			return "", err
		}
	}
	r.printed = append(r.printed, b.printed...)
	if first != b.first {
		text := []byte(b.text)
		for i := 0; i < len(text); i++ {
			if text[i] == valueMarker {
				copy(text[i:], markText(valueMarker, markIndex(b.text[i:])-b.first+first))
				i += markBytes - 1
			}
		}
		b.text, b.first = string(text), first
	}
	r.bodies[key] = b
	return b.text, nil
}

// keepBodies makes the outputs of one text known to the next one of the same service, and begins those of this one. A service
// that has never changed keeps none.
func (t *Templates) keepBodies(name namedMemo, render func() (*memoEntry, error)) (*memoEntry, error) {
	r := t.run
	last := t.newest[name]
	if last != nil {
		r.known, r.bodies = last.bodies, make(map[bodyKey]body, len(last.bodies))
	}
	entry, err := render()
	if err == nil && name.service != "" {
		t.newest[name], entry.bodies, entry.name = entry, r.bodies, name
		if last != nil {
			t.bodies -= len(last.bodies)
			last.bodies = nil
		}
		if t.bodies += len(entry.bodies); t.bodies > maxBodies {
			for _, other := range t.newest {
				other.bodies = nil
			}
			t.bodies = 0
		}
	}
	r.known, r.bodies = nil, nil
	return entry, err
}
