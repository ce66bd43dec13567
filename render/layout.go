package render

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
	"nuncio/internal/haproxy"
)

// source is a file of the tree that makes a file.
type source struct {
	name, out  string
	isTemplate bool
	resource   *confd.Resource // with Options.Confd
}

// lay returns what makes files in a tree, and the names of its templates, partials included.
func (t *Templates) lay() (sources []source, parse []string, err error) {
	if t.opts.Confd != nil {
		return t.layConfd()
	}
	_, isTemplate := t.tree[haproxy.ConfigFile+".tmpl"]
	if _, isStatic := t.tree[haproxy.ConfigFile]; !isTemplate && !isStatic {
		return nil, nil, &Error{File: haproxy.ConfigFile + ".tmpl", Message: "it does not exist, and HAProxy cannot run without a configuration: " +
			"the template directory must contain haproxy.cfg.tmpl, or haproxy.cfg if the configuration needs no services" + t.hint()}
	}
	made := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(t.tree)) {
		out, isTemplate, isPartial := output(name)
		if isTemplate {
			parse = append(parse, name)
		}
		if isPartial {
			continue
		}
		if other, taken := made[out]; taken {
			return nil, nil, &Error{File: name, Message: fmt.Sprintf("both this file and %[2]s make the file %[1]s: remove one of them", out, other)}
		}
		made[out] = name
		sources = append(sources, source{name: name, out: out, isTemplate: isTemplate})
	}
	return sources, parse, nil
}

// hint helps those who come from confd, or whose template has another name.
func (t *Templates) hint() string {
	if _, err := confd.Parse(t.tree, confd.Options{}); err == nil {
		return "; this is a directory of confd: give it with --confd in place of --templates"
	}
	for _, name := range []string{"haproxy.tmpl", "haproxy.conf.tmpl", "haproxy.cfg.ctmpl", "haproxy.cfg.j2"} {
		if _, found := t.tree[name]; found {
			return "; there is " + name + ": rename it"
		}
	}
	return ""
}

// layConfd lays out confd's own directory, where the resources say which template makes which file.
func (t *Templates) layConfd() (sources []source, parse []string, err error) {
	t.confd, err = confd.Parse(t.tree, *t.opts.Confd)
	if err != nil {
		return nil, nil, t.fromConfd(err)
	}
	for _, r := range t.confd.Resources {
		sources = append(sources, source{name: r.Src, out: r.Out, isTemplate: true, resource: r})
		if !slices.Contains(parse, r.Src) {
			parse = append(parse, r.Src)
		}
	}
	return sources, parse, nil
}

// unwatched returns an error if a resource reads keys outside what is watched, which is nil if it is not known.
func unwatched(resource *confd.Resource, watched catalog.Ranges) error {
	if watched == nil {
		return nil
	}
	for _, need := range catalog.NewRanges("", resource.Keys()) {
		if !watched.Hold(need) {
			return resource.Fault("keys", "%s was not watched when nuncio started: restart nuncio, or undo the change", cmp.Or(strings.TrimSuffix(need, "/"), "/"))
		}
	}
	return nil
}

// fromConfd makes an *Error of one of package confd.
func (t *Templates) fromConfd(err error) error {
	if e, ok := errors.AsType[*confd.Error](err); ok {
		return withExcerpt(t.tree, position{file: e.File, line: e.Line}, e.Message)
	}
	return err
}

// Layout is what confd's directory says, or nil without Options.Confd.
func (t *Templates) Layout() *confd.Layout { return t.confd }

// outside notes a question that no key of the resource covers, so that it is not silent that its answer is always empty.
func (t *Templates) outside(resource *confd.Resource, question string) {
	note := fmt.Sprintf("%s: %s: the keys of %s do not cover it, so confd finds nothing there, and neither does nuncio", resource.Src, question, resource.File)
	if !slices.Contains(t.run.outside, note) {
		t.run.outside = append(t.run.outside, note)
	}
}
