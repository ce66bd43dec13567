package render

import (
	"fmt"

	"nuncio/internal/catalog"
)

// memoKey identifies a memoised text. Its data is compared by pointer: in the catalog an unchanged service keeps its
// pointer from snapshot to snapshot and a changed one gets a new one, and summarizer does the same.
type memoKey struct {
	partial string
	file    string // the kind of file determines how values are escaped, and dropped lines name it
	of      any    // *catalog.Service, or list
}

// list identifies a list of summaries.
type list struct {
	first **ServiceSummary
	n     int
}

func identity(data any) (of any, ok bool) {
	switch data := data.(type) {
	case *catalog.Service:
		return data, data != nil
	case []*ServiceSummary:
		if len(data) == 0 {
			return list{}, true
		}
		return list{&data[0], len(data)}, true
	}
	return nil, false
}

type memoEntry struct {
	escaped
	used   bool // by the current rendering
	name   namedMemo
	bodies map[bodyKey]body // of its loops
}

// memoCall is what one call of memo printed.
type memoCall struct {
	entries []*memoEntry
	action  int // that printed it
}

// memoise renders a partial for a service or for the summaries, or returns the text from last time. For a list of services
// it does so for each, which is faster than a loop in the template's language.
func (t *Templates) memoise(partial string, data any) (memoText, error) {
	r := t.run
	if r.inMemo != "" {
		return "", fmt.Errorf("memo %q within memo %q: use include or template inside", partial, r.inMemo)
	}
	services, many := data.([]*catalog.Service)
	if !many {
		entry, err := t.remembered(partial, data)
		if err != nil {
			return "", err
		}
		r.memos = append(r.memos, memoCall{entries: []*memoEntry{entry}})
	} else {
		entries := make([]*memoEntry, len(services))
		for i, svc := range services {
			var err error
			if entries[i], err = t.remembered(partial, svc); err != nil {
				return "", err
			}
		}
		r.memos = append(r.memos, memoCall{entries: entries})
	}
	return memoText(markText(memoMarker, len(r.memos)-1)), nil
}

// eachKey identifies what memoEach remembers: texts by summary, which keep their pointers as services do.
type eachKey struct{ partial, file string }

type eachMemo struct {
	of      any // the list of summaries
	all     map[*ServiceSummary]*memoEntry
	entries []*memoEntry // those that say anything, in order
}

// memoEach renders a partial for each summary that is new. While no summary changes it costs nothing.
func (t *Templates) memoEach(partial string, summaries []*ServiceSummary) (memoText, error) {
	r := t.run
	if r.inMemo != "" {
		return "", fmt.Errorf("memoEach %q within memo %q: use include or template inside", partial, r.inMemo)
	}
	of, _ := identity(summaries)
	last := t.byPartial[eachKey{partial, r.file}]
	if last == nil || last.of != of {
		next := &eachMemo{of: of, all: make(map[*ServiceSummary]*memoEntry, len(summaries))}
		for _, s := range summaries {
			var entry *memoEntry
			if last != nil {
				entry = last.all[s]
			}
			if entry == nil {
				made, err := t.fresh(partial, s)
				if err != nil {
					return "", err
				}
				entry = &memoEntry{escaped: made}
			}
			next.all[s] = entry
			if entry.lines > 0 || len(entry.dropped)+len(entry.unmet) > 0 {
				next.entries = append(next.entries, entry)
			}
		}
		t.byPartial[eachKey{partial, r.file}], last = next, next
	}
	for _, entry := range last.entries {
		if err := r.grow(entry.text.Size()); err != nil {
			return "", err
		}
	}
	r.memos = append(r.memos, memoCall{entries: last.entries})
	return memoText(markText(memoMarker, len(r.memos)-1)), nil
}

func (t *Templates) remembered(partial string, data any) (*memoEntry, error) {
	r := t.run
	of, ok := identity(data)
	if !ok {
		return nil, fmt.Errorf("memo %q: the second argument must be a service, .Services or .Summaries, not %T", partial, data)
	}
	key := memoKey{partial, r.file, of}
	entry, hit := t.memo[key]
	if !hit {
		name := namedMemo{partial: partial, file: r.file}
		if svc, ok := data.(*catalog.Service); ok {
			name.service = svc.Name
		}
		var err error
		entry, err = t.keepBodies(name, func() (*memoEntry, error) {
			made, err := t.fresh(partial, data)
			return &memoEntry{escaped: made}, err
		})
		if err != nil {
			return nil, err
		}
		t.memo[key] = entry
	} else if err := r.grow(entry.text.Size()); err != nil {
		return nil, err
	}
	entry.used = true
	return entry, nil
}

// fresh renders and escapes a partial by itself. In HAProxy's files a LF always ends a line, so lines do not depend on the
// lines around them.
func (t *Templates) fresh(partial string, data any) (escaped, error) {
	r := t.run
	outer, unmet := r.printed, r.unmet
	r.printed, r.unmet, r.inMemo = nil, nil, partial
	_, r.memoOfAll = data.([]*ServiceSummary)
	text, err := t.execute(partial, data)
	if err != nil {
		return escaped{}, err
	}
	if text != "" && text[len(text)-1] != '\n' {
		text += "\n"
	}
	e := t.escaper()
	e.made.unmet = r.unmet
	made, err := e.escape(text)
	r.printed, r.unmet, r.inMemo = outer, unmet, ""
	return made, err
}

// forget deletes the texts that the rendering did not use: those of services that are gone or have changed.
func (t *Templates) forget() {
	for key, entry := range t.memo {
		if !entry.used {
			delete(t.memo, key)
			if t.newest[entry.name] == entry { // the service is gone
				delete(t.newest, entry.name)
				t.bodies -= len(entry.bodies)
			}
		}
		entry.used = false
	}
}

// outsideMemo returns an error inside memo, for functions whose result depends on more than memo's argument.
func (r *run) outsideMemo(function string) error {
	if r.inMemo == "" {
		return nil
	}
	return fmt.Errorf("function %q inside memo %q: the output of a memoised template may depend on its argument only; use include instead of memo", function, r.inMemo)
}
