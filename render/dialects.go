package render

import (
	"fmt"
	"strings"
	"text/template/parse"
)

// dialects has functions of other generators, which nuncio does not have, and whose they are.
var dialects = func() map[string]string {
	of := map[string]string{}
	for dialect, names := range map[string]string{
		"consul-template": "key keyOrDefault keyExists keyExistsGet services node nodes secret secrets tree safeTree safeLs byKey byTag byMeta byPort parseJSON parseYAML parseInt parseFloat " +
			"parseUint executeTemplate scratch loop plugin timestamp caRoots caLeaf connect datacenters mergeMap nomadService nomadServices pkiCert containsAny containsAll toTitle",
		"docker-gen": "groupBy groupByKeys groupByLabel groupByLabelWithDefault groupByMulti groupByWithDefault where whereNot whereExist whereNotExist whereAny whereAll whereLabelExists " +
			"whereLabelDoesNotExist whereLabelValueMatches closest dirList intersect queryEscape sha1 sortStringsAsc sortStringsDesc sortObjectsByKeysAsc sortObjectsByKeysDesc",
	} {
		for name := range strings.FieldsSeq(names) {
			of[name] = dialect
		}
	}
	return of
}()

// inOurTerms is the loop that a template of another generator most likely makes.
const inOurTerms = `nuncio's data are services and their instances: {{range .Services}}backend {{.Name}}{{range .Instances}} server {{.Name}} {{.Addr}} id {{.ID}} check{{end}}{{end}}, ` +
	`each backend and each server on a line of its own; one service alone: {{range (service "web").Instances}}; keys: {{range gets "/config/*"}}. See docs/templates.md`

// undefined says that a function does not exist, and what the template may have been written for.
func undefined(name string) string {
	if why, known := unavailable[name]; known {
		return fmt.Sprintf("function %q is not available: %s", name, why)
	}
	if dialect, known := dialects[name]; known {
		return fmt.Sprintf("function %q is %s's, so this is a template of %[2]s: %s", name, dialect, inOurTerms)
	}
	return fmt.Sprintf("function %q is not defined", name)
}

// rangesService refuses {{range service "web"}}, which consul-template has, and which no data of nuncio could make work.
func (c *compiler) rangesService(n *parse.RangeNode) error {
	last := n.Pipe.Cmds[len(n.Pipe.Cmds)-1]
	if name, ok := last.Args[0].(*parse.IdentifierNode); ok && name.Ident == "service" {
		return &fault{c.placeOf(last.Pos), "range over a service, as in consul-template: write its instances, in parentheses, as in " +
			`{{range (service "web").Instances}}server {{.Name}} {{.Host}}:{{.Port}}{{end}}; ` + inOurTerms}
	}
	return nil
}
