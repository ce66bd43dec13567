package catalog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Selector says which records are of interest, by conditions that must all hold. The zero value selects every record.
type Selector struct {
	text  string
	terms []term
}

// term is one condition.
type term struct {
	key     string // "name", "tag", or a meta key behind "meta."
	not     bool
	pattern string
}

const termsNeeded = "conditions separated by commas are needed, such as tag=edge,meta.zone=a,name=web-*,tag!=canary"

// ParseSelector reads an expression such as "tag=edge,meta.zone=a,name=web-*,tag!=canary". An asterisk stands for any
// text, also none. Its error names the place, counted in bytes from 1. An empty expression selects every record.
func ParseSelector(text string) (Selector, error) {
	s := Selector{text: text}
	if text == "" {
		return s, nil
	}
	at := 0
	for part := range strings.SplitSeq(text, ",") {
		t, err := parseTerm(part)
		if err != nil {
			// The place is where the condition begins, behind blanks.
			column := at + len(part) - len(strings.TrimLeft(part, " \t")) + 1
			return Selector{}, fmt.Errorf("column %d of %q: %w", column, text, err)
		}
		s.terms = append(s.terms, t)
		at += len(part) + 1
	}
	return s, nil
}

func parseTerm(text string) (term, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return term{}, errors.New("a condition is missing; " + termsNeeded)
	}
	key, pattern, found := strings.Cut(text, "=")
	if !found {
		return term{}, fmt.Errorf("%q has neither = nor !=; %s", text, termsNeeded)
	}
	key, not := strings.CutSuffix(key, "!")
	t := term{key: strings.TrimSpace(key), not: not, pattern: strings.TrimSpace(pattern)}
	meta, isMeta := strings.CutPrefix(t.key, "meta.")
	switch {
	case strings.HasPrefix(t.pattern, "="):
		return term{}, fmt.Errorf("%q has two equals signs; one is needed", text)
	case isMeta && meta == "":
		return term{}, fmt.Errorf("%q lacks the name behind meta., as in meta.zone=a", text)
	case !isMeta && t.key != "name" && t.key != "tag":
		return term{}, fmt.Errorf("%q is unknown; name, tag or meta.%s is needed", t.key, t.key)
	case t.pattern == "":
		return term{}, fmt.Errorf("%q lacks the value behind the equals sign; * stands for any", text)
	}
	return t, nil
}

// String returns the expression.
func (s Selector) String() string { return s.text }

// UnmarshalText makes a Selector usable as a flag.
func (s *Selector) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSelector(string(text))
	return err
}

// Match reports whether a record of the service is selected. A nil instance stands for a record that cannot be read: then
// only its service's name counts, so that it is reported to those who may want it.
func (s Selector) Match(service string, i *Instance) bool {
	for _, t := range s.terms {
		if i == nil && t.key != "name" {
			continue
		}
		if t.holds(service, i) == t.not {
			return false
		}
	}
	return true
}

// holds reports whether what the term names has a value that matches.
func (t term) holds(service string, i *Instance) bool {
	switch t.key {
	case "name":
		return matches(t.pattern, service)
	case "tag":
		return slices.ContainsFunc(i.Tags, func(tag string) bool { return matches(t.pattern, tag) })
	}
	value, there := i.Meta[strings.TrimPrefix(t.key, "meta.")]
	return there && matches(t.pattern, value)
}

// matches reports whether text is the pattern, in which an asterisk stands for any text.
func matches(pattern, text string) bool {
	first, rest, some := strings.Cut(pattern, "*")
	if !some {
		return pattern == text
	}
	text, found := strings.CutPrefix(text, first)
	for found && some {
		var part string
		if part, rest, some = strings.Cut(rest, "*"); !some {
			return strings.HasSuffix(text, part)
		}
		_, text, found = strings.Cut(text, part)
	}
	return found
}
