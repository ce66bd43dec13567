package render

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template/parse"
)

// settingNames are the names that templates give to the function setting.
type settingNames struct {
	asked map[string]bool
	any   bool // a name is made while rendering, so any may be meant
}

// note takes a command of a template, and whether a pipeline gives it a last argument.
func (n *settingNames) note(c *parse.CommandNode, piped bool) {
	if f, ok := c.Args[0].(*parse.IdentifierNode); !ok || f.Ident != "setting" {
		return
	}
	if len(c.Args) == 1 {
		n.any = n.any || piped
		return
	}
	name, ok := c.Args[1].(*parse.StringNode)
	switch {
	case !ok:
		n.any = true
	case n.asked == nil:
		n.asked = map[string]bool{name.Text: true}
	default:
		n.asked[name.Text] = true
	}
}

// CheckSettings returns an error for settings of an operator that no template asks for: a misspelt one would otherwise change nothing, in
// silence. It names those that are asked for. Where a template makes such a name while it renders, any may be meant.
func (t *Templates) CheckSettings(set map[string]string) error {
	asked := slices.Sorted(maps.Keys(t.settings.asked))
	unasked := slices.DeleteFunc(slices.Sorted(maps.Keys(set)), func(name string) bool { return t.settings.asked[name] })
	switch {
	case len(unasked) == 0 || t.settings.any:
		return nil
	case len(asked) == 0:
		return fmt.Errorf("no template asks for the setting %s, nor for any other", strings.Join(unasked, ", "))
	}
	return fmt.Errorf("no template asks for the setting %s; they ask for %s", strings.Join(unasked, ", "), strings.Join(asked, ", "))
}
