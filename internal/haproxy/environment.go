package haproxy

// environment is the process environment as the global section's own directives change it.
type environment struct {
	get     func(string) (string, bool)
	changed map[string]*string // nil value: unset
	reset   bool
}

func (e *environment) lookup(name string) (string, bool) {
	if v, ok := e.changed[name]; ok {
		if v == nil {
			return "", false
		}
		return *v, true
	}
	if e.reset || e.get == nil {
		return "", false
	}
	return e.get(name)
}

func (e *environment) set(name string, value *string) {
	if e.changed == nil {
		e.changed = make(map[string]*string)
	}
	e.changed[name] = value
}

func (e *environment) directive(words []Word) {
	switch key := words[0].Text; key {
	case "setenv", "presetenv":
		if len(words) < 3 {
			return
		}
		if _, ok := e.lookup(words[1].Text); ok && key == "presetenv" {
			return
		}
		value := words[2].Text // a copy, because words is reused
		e.set(words[1].Text, &value)
	case "unsetenv":
		for _, w := range words[1:] {
			e.set(w.Text, nil)
		}
	case "resetenv":
		keep := make(map[string]*string)
		for _, w := range words[1:] {
			if v, ok := e.lookup(w.Text); ok {
				keep[w.Text] = &v
			}
		}
		e.changed, e.reset = keep, true
	}
}
