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

const (
	// bodyFunc takes the place of a loop's body.
	bodyFunc = "_nuncio_body"
	// eachFunc takes the place of a loop over a field if instancesFunc finds instances in it: calling a function for each of
	// them in the template's language would take longer than all that it does.
	eachFunc      = "_nuncio_each"
	instancesFunc = "_nuncio_instances"
)

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

// isolate moves the body of a loop into a template of its own, if it depends on nothing but its element, and returns what is to
// stand in place of the loop.
func (c *compiler) isolate(n *parse.RangeNode) (parse.Node, error) {
	if len(n.Pipe.Decl) > 0 || !isolatedList(n.List) {
		return n, nil
	}
	number := c.number(n.Pos)
	tree := *c.current
	tree.Name, tree.Root = bodyName(number), n.List
	if _, err := c.set.AddParseTree(tree.Name, &tree); err != nil {
		return nil, err
	}
	n.List = listOf(c.call(bodyFunc, number, n.Pos, &parse.DotNode{NodeType: parse.NodeDot, Pos: n.Pos}))
	if len(n.Pipe.Cmds) != 1 || len(n.Pipe.Cmds[0].Args) != 1 {
		return n, nil
	}
	over := n.Pipe.Cmds[0].Args[0]
	switch over.(type) {
	case *parse.FieldNode, *parse.VariableNode:
		return &parse.IfNode{BranchNode: parse.BranchNode{
			NodeType: parse.NodeIf, Pos: n.Pos, Pipe: c.call(instancesFunc, number, n.Pos, over).Pipe,
			List: listOf(c.call(eachFunc, number, n.Pos, over)), ElseList: listOf(n),
		}}, nil
	}
	return n, nil
}

// call is an action that calls a function with a number and a value.
func (c *compiler) call(function string, number int, pos parse.Pos, value parse.Node) *parse.ActionNode {
	cmd := c.numbered(function, number, pos)
	cmd.Args = append(cmd.Args, value)
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: pos, Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{cmd}}}
}

func listOf(n parse.Node) *parse.ListNode {
	return &parse.ListNode{NodeType: parse.NodeList, Pos: n.Position(), Nodes: []parse.Node{n}}
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
		return !slices.Contains([]string{"memo", "memoEach", "include", "textOf", "unmet", "incumbent"}, arg.Ident)
	}
	return true
}

// each renders the isolated body of a loop for instances.
func (t *Templates) each(number int, instances []*catalog.Instance) (string, error) {
	var b strings.Builder
	for _, instance := range instances {
		if _, err := t.run.countTurn(t.where[number]); err != nil {
			return "", err
		}
		text, err := t.body(number, instance)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// instances reports whether a loop has instances to go over; without any it may have an else.
func instances(_ int, value any) bool {
	all, ok := value.([]*catalog.Instance)
	return ok && len(all) > 0
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
