package render

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
)

// Names of the functions that New inserts into every template. A template cannot call them: names that begin with "_" are
// rejected.
const (
	markFunc  = "_nuncio_mark"
	enterFunc = "_nuncio_enter"
	leaveFunc = "_nuncio_leave"
	tickFunc  = "_nuncio_tick"
)

// compiler parses a tree of templates and rewrites them: the output of each action is marked, the nesting of templates and
// the turns of loops are counted.
type compiler struct {
	tree    map[string]string
	funcs   template.FuncMap
	set     *template.Template
	actions map[int]action
	where   []position        // place of each numbered action and text
	defined map[string]string // template name -> the file that defines it
	origins bool              // mark the lines of text
	scoped  bool              // a name belongs to the file that defines it, as in confd, where each template stands alone
	current *parse.Tree
	file    string
	calls   []call
	asked   settingNames
}

func (c *compiler) add(file string) error {
	text := c.tree[file]
	c.file = file
	if at := firstMarker(text); at >= 0 {
		return &fault{c.placeOf(parse.Pos(at)), "a byte 0xFD, 0xFE or 0xFF, which no UTF-8 text contains: save the template as UTF-8"}
	}
	trees := make(map[string]*parse.Tree)
	t := parse.New(file)
	// Unknown functions are reported below, with more help than the parser gives.
	t.Mode = parse.SkipFuncCheck
	if _, err := t.Parse(text, "", "", trees); err != nil {
		return err
	}
	trees[file] = t
	if c.scoped {
		trees = c.scope(trees)
	}
	names := slices.Sorted(maps.Keys(trees))
	for _, name := range names {
		if other, taken := c.defined[name]; taken {
			return &fault{position{file: file}, fmt.Sprintf("template %q is defined in %s and in %s: rename one of them", name, min(other, file), max(other, file))}
		}
		c.defined[name] = file
	}
	for _, name := range names {
		t := trees[name]
		c.current = t
		if err := c.list(t.Root); err != nil {
			return err
		}
		t.Root.Nodes = append(append([]parse.Node{c.action(enterFunc, t.Root.Pos)}, t.Root.Nodes...), c.action(leaveFunc, t.Root.Pos))
		if _, err := c.set.AddParseTree(name, t); err != nil {
			return err
		}
	}
	return nil
}

// scope gives the templates that a file defines names of their own.
func (c *compiler) scope(trees map[string]*parse.Tree) map[string]*parse.Tree {
	scoped := make(map[string]*parse.Tree, len(trees))
	for name, t := range trees {
		if name != c.file {
			name = c.scopedName(name)
		}
		t.Name = name
		scoped[name] = t
	}
	return scoped
}

// scopedName is the name of a template within the current file; confd knows a file by its base name.
func (c *compiler) scopedName(name string) string {
	if name == path.Base(c.file) {
		return c.file
	}
	return c.file + ": " + name
}

// call is a {{template}} action. It is resolved after all files are parsed.
type call struct {
	at   position
	name string
}

func (c *compiler) resolve() error {
	for _, call := range c.calls {
		if _, ok := c.defined[call.name]; !ok {
			return &fault{call.at, fmt.Sprintf("there is no template %q: its name is the path of a file, or the name in a {{define}}", call.name)}
		}
	}
	return nil
}

func (c *compiler) list(l *parse.ListNode) error {
	if l == nil {
		return nil
	}
	for i, n := range l.Nodes {
		err := c.node(n)
		if loop, ok := n.(*parse.RangeNode); ok && err == nil {
			l.Nodes[i], err = c.loop(loop)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) node(n parse.Node) error {
	switch n := n.(type) {
	case *parse.TextNode:
		if c.origins {
			c.markLines(n)
		}
	case *parse.ActionNode:
		if err := c.pipe(n.Pipe); err != nil {
			return err
		}
		if len(n.Pipe.Decl) == 0 {
			c.mark(n)
		}
	case *parse.IfNode:
		return c.branch(&n.BranchNode)
	case *parse.WithNode:
		return c.branch(&n.BranchNode)
	case *parse.RangeNode:
		if err := c.rangesService(n); err != nil {
			return err
		}
		return c.branch(&n.BranchNode)
	case *parse.TemplateNode:
		if c.scoped {
			n.Name = c.scopedName(n.Name)
		}
		c.calls = append(c.calls, call{c.placeOf(n.Pos), n.Name})
		if n.Pipe != nil {
			return c.pipe(n.Pipe)
		}
	}
	return nil
}

// loop returns what is to stand in place of a loop.
func (c *compiler) loop(n *parse.RangeNode) (parse.Node, error) {
	next, err := c.isolate(n)
	n.List.Nodes = append([]parse.Node{c.action(tickFunc, n.Pos)}, n.List.Nodes...)
	return next, err
}

func (c *compiler) branch(b *parse.BranchNode) error {
	if err := c.pipe(b.Pipe); err != nil {
		return err
	}
	if err := c.list(b.List); err != nil {
		return err
	}
	return c.list(b.ElseList)
}

// pipe checks that every function in a pipeline exists.
func (c *compiler) pipe(p *parse.PipeNode) error {
	for i, cmd := range p.Cmds {
		c.asked.note(cmd, i > 0)
		for _, arg := range cmd.Args {
			if err := c.argument(arg); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *compiler) argument(arg parse.Node) error {
	switch arg := arg.(type) {
	case *parse.PipeNode:
		return c.pipe(arg)
	case *parse.ChainNode:
		return c.argument(arg.Node)
	case *parse.IdentifierNode:
		if _, ok := c.funcs[arg.Ident]; ok && !strings.HasPrefix(arg.Ident, "_") || builtins[arg.Ident] {
			return nil
		}
		return &fault{c.placeOf(arg.Pos), undefined(arg.Ident)}
	}
	return nil
}

// mark pipes the value of an action into the marking function, with the number of the action.
func (c *compiler) mark(n *parse.ActionNode) {
	about := action{source: n.Pipe.String(), literals: map[string]bool{}}
	literalTexts(n.Pipe, about.literals)
	n.Pipe.Cmds = append(n.Pipe.Cmds, c.command(markFunc, n.Pos))
	c.actions[len(c.where)-1] = about
}

// literalTexts collects the texts of a pipeline.
func literalTexts(p *parse.PipeNode, into map[string]bool) {
	for _, cmd := range p.Cmds {
		for _, arg := range cmd.Args {
			switch arg := arg.(type) {
			case *parse.StringNode:
				into[arg.Text] = true
			case *parse.PipeNode:
				literalTexts(arg, into)
			}
		}
	}
}

// command is a call of a function with the number of a place.
func (c *compiler) command(name string, pos parse.Pos) *parse.CommandNode {
	return c.numbered(name, c.number(pos), pos)
}

func (c *compiler) numbered(name string, number int, pos parse.Pos) *parse.CommandNode {
	return &parse.CommandNode{NodeType: parse.NodeCommand, Pos: pos, Args: []parse.Node{
		parse.NewIdentifier(name).SetPos(pos).SetTree(c.current),
		&parse.NumberNode{NodeType: parse.NodeNumber, Pos: pos, IsInt: true, IsUint: true, Int64: int64(number), Uint64: uint64(number), Text: strconv.Itoa(number)},
	}}
}

// number returns a new number for a place of the current file.
func (c *compiler) number(pos parse.Pos) int {
	c.where = append(c.where, c.placeOf(pos))
	return len(c.where) - 1
}

func (c *compiler) action(name string, pos parse.Pos) parse.Node {
	cmd := c.command(name, pos)
	return &parse.ActionNode{NodeType: parse.NodeAction, Pos: pos, Pipe: &parse.PipeNode{NodeType: parse.NodePipe, Pos: pos, Cmds: []*parse.CommandNode{cmd}}}
}

var builtins = map[string]bool{
	"and": true, "break": true, "call": true, "continue": true, "eq": true, "ge": true, "gt": true, "html": true, "index": true, "js": true, "le": true,
	"len": true, "lt": true, "ne": true, "not": true, "or": true, "print": true, "printf": true, "println": true, "slice": true, "urlquery": true,
}

// placeOf returns the place of a byte of the current file.
func (c *compiler) placeOf(pos parse.Pos) position {
	before := c.tree[c.file][:pos]
	return position{c.file, strings.Count(before, "\n") + 1, len(before) - strings.LastIndexByte(before, '\n')}
}

// output returns the name of the file that a template makes. Partials make none.
func output(name string) (out string, isTemplate, isPartial bool) {
	if !strings.HasSuffix(name, ".tmpl") {
		return name, false, strings.HasPrefix(path.Base(name), "_")
	}
	return strings.TrimSuffix(name, ".tmpl"), true, strings.HasPrefix(path.Base(name), "_")
}
