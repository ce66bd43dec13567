package render

import (
	"regexp"
	"text/template"
)

// maxPatterns bounds the cache of regular expressions: a template that makes them from values could have any number.
const maxPatterns = 1000

// pattern compiles a regular expression once.
func (t *Templates) pattern(text string) (*regexp.Regexp, error) {
	if re, known := t.patterns[text]; known {
		return re, nil
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, err
	}
	if len(t.patterns) >= maxPatterns {
		clear(t.patterns)
	}
	t.patterns[text] = re
	return re, nil
}

// matcher makes a template function of a method of a regular expression.
func matcher[R any](t *Templates, method func(re *regexp.Regexp, s string) R) func(pattern, s string) (R, error) {
	return func(pattern, s string) (result R, err error) {
		re, err := t.pattern(pattern)
		if err == nil {
			result = method(re, s)
		}
		return result, err
	}
}

// matcherWith is matcher for a method with one more argument.
func matcherWith[A, R any](t *Templates, method func(re *regexp.Regexp, s string, arg A) R) func(pattern, s string, arg A) (R, error) {
	return func(pattern, s string, arg A) (R, error) {
		return matcher(t, func(re *regexp.Regexp, s string) R { return method(re, s, arg) })(pattern, s)
	}
}

// regex returns sprig's functions for regular expressions, with sprig's meaning. sprig compiles at each call, which would
// double the time that the shipped routes take.
func (t *Templates) regex() template.FuncMap {
	find, findAll := matcher(t, (*regexp.Regexp).FindString), matcherWith(t, (*regexp.Regexp).FindAllString)
	replace, literal := matcherWith(t, (*regexp.Regexp).ReplaceAllString), matcherWith(t, (*regexp.Regexp).ReplaceAllLiteralString)
	match, split := matcher(t, (*regexp.Regexp).MatchString), matcherWith(t, (*regexp.Regexp).Split)
	return template.FuncMap{
		"regexFind": find, "mustRegexFind": find, "regexFindAll": findAll, "mustRegexFindAll": findAll, "mustRegexMatch": match,
		// As in sprig, an invalid regular expression matches nothing.
		"regexMatch":      func(pattern, s string) bool { ok, _ := match(pattern, s); return ok },
		"regexReplaceAll": replace, "mustRegexReplaceAll": replace, "regexReplaceAllLiteral": literal, "mustRegexReplaceAllLiteral": literal,
		"regexSplit": split, "mustRegexSplit": split,
	}
}
