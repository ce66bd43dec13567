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

// functions returns all functions that a template can call besides those of text/template.
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
	maps.Copy(funcs, t.confdFunctions())
	maps.Copy(funcs, template.FuncMap{
		"service": t.service, "hasService": t.hasService, "meta": meta, "setting": t.setting, "include": t.include, "textOf": t.textOf, "unmet": t.unmet, "incumbent": t.incumbent, "uses": t.uses, "watched": t.watched, "networkDigits": networkDigits, "memo": t.memoise, "memoEach": t.memoEach, "fail": fail,
		"raw": raw, "words": words, "options": options, "q": q, "quote": q, "squote": q, "logformat": logformat,
		markFunc: t.mark,
		bodyFunc: t.body, eachFunc: t.each, instancesFunc: instances,
		enterFunc: func(at int) (void, error) { return t.run.enterTemplate(t.where[at]) },
		leaveFunc: func(int) void { t.run.depth--; return void{} },
		tickFunc:  func(at int) (void, error) { return t.run.countTurn(t.where[at]) },
	})
	return funcs
}

// String is empty: enterFunc, leaveFunc, tickFunc and unmet are actions, but must not print.
func (void) String() string { return "" }

func (t *Templates) getenv(name string, fallback ...string) string {
	if t.opts.Getenv != nil {
		if v, ok := t.opts.Getenv(name); ok && (v != "" || len(fallback) == 0) {
			t.environment[v] = true
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
	return "", fmt.Errorf("the setting %q is missing, and the template has no default: set it with --set", name)
}

// service returns a service without instances if the name is unknown, so that a template can always range over them.
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

// meta returns the value of a meta key. A field path cannot name a key with a dot.
func meta(of any, key string, fallback ...string) (string, error) {
	var m map[string]string
	switch of := of.(type) {
	case *catalog.Service:
		m = of.Meta
	case *catalog.Instance:
		m = of.Meta
	case *ServiceSummary:
		if !catalog.ServiceWide(key) {
			return "", fmt.Errorf("meta %q: a summary has only the settings of a whole service, such as http.host; range over .Services instead", key)
		}
		m = of.Meta
	default:
		return "", fmt.Errorf("meta: the first argument must be a service, an instance or a summary, not %T", of)
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
		return "", errors.New("include: the arguments must be a name and at most one value")
	}
	var dot any
	if len(data) == 1 {
		dot = data[0]
	}
	text, err := t.execute(name, dot)
	return includedText(text), err
}

// textOf returns the output of a partial as a value: when it is printed, all of it is escaped, the partial's own words too.
func (t *Templates) textOf(name string, data any) (string, error) {
	r := t.run
	before := len(r.printed)
	text, err := t.execute(name, data)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for {
		at := firstMarker(text)
		if at < 0 {
			b.WriteString(text)
			r.printed = r.printed[:before]
			return strings.TrimSpace(b.String()), nil
		}
		b.WriteString(text[:at])
		switch text[at] {
		case valueMarker:
			b.WriteString(r.printed[markIndex(text[at:])].value)
		case memoMarker:
			return "", fmt.Errorf("textOf %q: memo is not possible inside", name)
		}
		text = text[at+markBytes:]
	}
}

func fail(message string) (string, error) { return "", errors.New(message) }

// raw prints a value without escaping it. Nothing else does.
func raw(value any) (rawText, error) {
	if r, ok := value.(rawText); ok {
		return r, nil
	}
	text, err := printable(value)
	return rawText{text}, err
}

// q marks a value for escaping, which happens to every value anyway.
func q(value any) quoted { return quoted{value: value} }

// logformat applies the rules of log-format strings where nuncio does not know that a directive has them.
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
