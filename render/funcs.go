package render

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"

	"nuncio/internal/catalog"
)

// functions is everything a template can call besides the language's own.
func (t *Templates) functions() template.FuncMap {
	funcs := make(template.FuncMap)
	theirs := sprig.TxtFuncMap()
	for _, name := range fromSprig {
		funcs[name] = theirs[name]
	}
	maps.Copy(funcs, template.FuncMap{
		"keys": sortedKeys, "values": sortedValues, "repeat": repeat, "until": until, "untilStep": untilStep,
		"env": func(name string) string { return t.getenv(name) },
	})
	maps.Copy(funcs, t.regex())
	maps.Copy(funcs, t.confd())
	maps.Copy(funcs, template.FuncMap{
		"service": t.service, "hasService": t.hasService, "meta": meta, "setting": t.setting, "include": t.include, "memo": t.memoise, "fail": fail,
		"raw": raw, "q": q, "quote": q, "squote": q, "logformat": logformat,
		markFunc:  t.mark,
		enterFunc: func(at int) (void, error) { return t.run.enter(t.where[at]) },
		leaveFunc: func(int) void { t.run.depth--; return void{} },
		tickFunc:  func(at int) (void, error) { return t.run.tick(t.where[at]) },
	})
	return funcs
}

// String makes the parts of the machinery that are called as actions print nothing.
func (void) String() string { return "" }

func (t *Templates) getenv(name string, fallback ...string) string {
	if t.opts.Getenv != nil {
		if v, ok := t.opts.Getenv(name); ok && (v != "" || len(fallback) == 0) {
			return v
		}
	}
	if len(fallback) > 0 {
		return fallback[0]
	}
	return ""
}

func (t *Templates) setting(name string, fallback ...string) (string, error) {
	if v, ok := t.opts.Settings[name]; ok {
		return v, nil
	}
	if len(fallback) > 0 {
		return fallback[0], nil
	}
	return "", fmt.Errorf("there is no setting %q and the template gives no default", name)
}

// service never returns nil, so that a template can range over the instances of a service that is not there.
func (t *Templates) service(name string) (*catalog.Service, error) {
	if err := t.run.outsideMemo("service"); err != nil {
		return nil, err
	}
	if s := t.run.snap.Service(name); s != nil {
		return s, nil
	}
	return &catalog.Service{Name: name, Meta: map[string]string{}}, nil
}

func (t *Templates) hasService(name string) (bool, error) {
	if err := t.run.outsideMemo("hasService"); err != nil {
		return false, err
	}
	return t.run.snap.Service(name) != nil, nil
}

// meta looks a key up that a field path cannot name, because it holds a dot.
func meta(of any, key string, fallback ...string) (string, error) {
	var m map[string]string
	switch of := of.(type) {
	case *catalog.Service:
		m = of.Meta
	case *catalog.Instance:
		m = of.Meta
	case *ServiceSummary:
		if !catalog.ServiceWide(key) {
			return "", fmt.Errorf("meta %q: a summary has what services say as a whole, such as http.host, and not this; range over .Services instead", key)
		}
		m = of.Meta
	default:
		return "", fmt.Errorf("meta wants a service, an instance or a summary, not %T", of)
	}
	if v, ok := m[key]; ok && (v != "" || len(fallback) == 0) {
		return v, nil
	}
	if len(fallback) > 0 {
		return fallback[0], nil
	}
	return "", nil
}

func (t *Templates) include(name string, data ...any) (includedText, error) {
	if len(data) > 1 {
		return "", errors.New("include wants a name and one piece of data")
	}
	var dot any
	if len(data) == 1 {
		dot = data[0]
	}
	text, err := t.execute(name, dot)
	return includedText(text), err
}

func fail(message string) (string, error) { return "", errors.New(message) }

// raw is the one way to print text that is not escaped.
func raw(value any) (rawText, error) {
	if r, ok := value.(rawText); ok {
		return r, nil
	}
	text, err := printable(value)
	return rawText{text}, err
}

// q says what happens to every value anyway.
func q(value any) quoted { return quoted{value: value} }

// logformat asks for the rules of log-format strings at a place where nuncio does not know that there is one.
func logformat(value any) quoted { return quoted{value: value, format: true} }

func repeat(count int, text string) (string, error) {
	if count < 0 || len(text) > 0 && count > maxText/len(text) {
		return "", fmt.Errorf("repeat: %d times %d bytes is too much", count, len(text))
	}
	return strings.Repeat(text, count), nil
}

func until(count int) ([]int, error) {
	if count < 0 {
		return untilStep(0, count, -1)
	}
	return untilStep(0, count, 1)
}

func untilStep(start, stop, step int) ([]int, error) {
	out := []int{}
	if step == 0 {
		return out, nil
	}
	for i := start; step > 0 && i < stop || step < 0 && i > stop; i += step {
		if len(out) >= maxList {
			return nil, fmt.Errorf("more than %d numbers", maxList)
		}
		out = append(out, i)
	}
	return out, nil
}
