package status

import (
	"strings"

	"nuncio/internal/haproxy"
)

// deepest is how many variables are followed that are set from each other.
const deepest = 8

// leadsTo adds the backends that a computed name can be. Only a name that is an entry of a map of the generation, or a
// variable set from one, can be told; whatever else there is makes the routes opaque.
func (r *reading) leadsTo(format string, depth int) {
	expr, plain := strings.CutPrefix(format, "%[")
	expr, end := strings.CutSuffix(expr, "]")
	if !plain || !end || depth > deepest || strings.ContainsAny(expr, `"'\[] `) {
		r.opaque = true
		return
	}
	steps := split(expr)
	name, arguments := call(steps[len(steps)-1])
	switch {
	case len(steps) > 1 && fromMap(name):
		r.mapped(arguments)
	case len(steps) == 1 && name == "var":
		r.add(arguments[1:]) // what it is where it was never set
		r.variable(arguments[0], depth)
	case len(steps) == 1 && name == "str":
		r.add(arguments)
	default:
		r.opaque = true
	}
}

func (r *reading) add(backends []string) {
	for _, b := range backends {
		r.backends[b] = true
	}
}

func (r *reading) variable(name string, depth int) {
	if strings.HasPrefix(name, "proc.") { // a person may set it
		r.opaque = true
	}
	for _, expr := range r.set[name] {
		r.leadsTo("%["+expr+"]", depth+1)
	}
}

// mapped adds the values of a map, and what is taken when none of its keys fits.
func (r *reading) mapped(arguments []string) {
	name, ok := r.own(arguments[0])
	if !ok {
		r.opaque = true
		return
	}
	r.add(arguments[1:])
	if _, read := r.maps[name]; !read {
		r.maps[name] = r.values(name)
	}
	r.add(r.maps[name])
}

func (r *reading) values(file string) []string {
	values := []string{}
	for line := range strings.Lines(r.files.Text(file).String()) {
		line = strings.TrimSpace(line)
		if comment, ok := strings.CutPrefix(line, "#"); ok {
			r.note(file, comment)
			continue
		}
		if i := strings.IndexAny(line, " \t"); i > 0 {
			values = append(values, strings.TrimSpace(line[i:]))
		}
	}
	return values
}

// fromMap says whether a converter answers with the text of a map's entry.
func fromMap(name string) bool {
	return (name == "map" || strings.HasPrefix(name, "map_")) &&
		!strings.HasSuffix(name, "_int") && !strings.HasSuffix(name, "_ip") && name != "map_regm"
}

// assignment notes what a variable is set to. Words begin with the one that sets it; of what is no "set-var(NAME) EXPRESSION"
// of a rule, only the name is noted.
func (r *reading) assignment(words []haproxy.Word) {
	name, arguments := call(words[0].Text)
	if name == "set-var" && len(words) > 1 && !words[1].Expanded && ends(words[2:]) {
		r.set[arguments[0]] = append(r.set[arguments[0]], words[1].Text)
		return
	}
	if !strings.Contains(words[0].Text, "(") && len(words) > 1 { // "set-var NAME EXPRESSION" in the global section
		r.set[words[1].Text] = []string{""}
	}
	for _, part := range strings.Split(words[0].Text, "set-var")[1:] {
		_, variable, _ := strings.Cut(part, "(")
		if end := strings.IndexAny(variable, ",)"); end >= 0 {
			variable = variable[:end]
		}
		r.set[variable] = append(r.set[variable], "")
	}
}

// ends says whether an expression is over: converters may also follow it as words of their own.
func ends(words []haproxy.Word) bool {
	return len(words) == 0 || words[0].Text == "if" || words[0].Text == "unless"
}

// call splits "name(a,b)"; there is always an argument, empty where none is written.
func call(step string) (name string, arguments []string) {
	name, rest, _ := strings.Cut(step, "(")
	return name, strings.Split(strings.TrimSuffix(rest, ")"), ",")
}

// split cuts an expression at the commas that stand in no brackets.
func split(expr string) []string {
	var steps []string
	depth, from := 0, 0
	for i, c := range []byte(expr) {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			steps, from = append(steps, expr[from:i]), i+1
		}
	}
	return append(steps, expr[from:])
}
