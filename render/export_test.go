package render

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
)

// FromSprig lists the functions taken from sprig, sorted, for the documentation's test.
func FromSprig() []string {
	return slices.Sorted(slices.Values(append([]string{"keys", "repeat", "until", "untilStep", "values"}, fromSprig...)))
}

// OwnFunctions are the functions that are not sprig's, or not as sprig has them.
func OwnFunctions() template.FuncMap {
	own := (&Templates{}).functions()
	for _, name := range FromSprig() {
		delete(own, name)
	}
	maps.DeleteFunc(own, func(name string, _ any) bool { return strings.HasPrefix(name, "_") })
	return own
}

// OwnAndSprig are all functions, of an empty set of templates.
func OwnAndSprig() template.FuncMap {
	return (&Templates{patterns: map[string]*regexp.Regexp{}}).functions()
}

// SetTurns bounds the loops of a rendering.
func (t *Templates) SetTurns(most int) { t.loopLimit = most }

// Remembered counts the memoised texts.
func (t *Templates) Remembered() int { return len(t.memo) }

// Unaccounted are the functions of sprig that are neither offered nor unavailable for a stated reason.
func Unaccounted() []string {
	offered := (&Templates{}).functions()
	var names []string
	for name := range sprig.TxtFuncMap() {
		_, left := unavailable[name]
		if _, ok := offered[name]; ok == left && !builtins[name] {
			names = append(names, name)
		}
	}
	return names
}
