package render

import (
	"regexp"
	"text/template"
)

// maxPatterns bounds what is kept of regular expressions; a template that makes them of values could have any number.
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

// regex are sprig's functions for regular expressions, with sprig's meaning. sprig compiles at each call, which takes
// longer than most templates need for a whole service.
func (t *Templates) regex() template.FuncMap {
	find := func(regex, s string) (string, error) {
		re, err := t.pattern(regex)
		if err != nil {
			return "", err
		}
		return re.FindString(s), nil
	}
	findAll := func(regex, s string, n int) ([]string, error) {
		re, err := t.pattern(regex)
		if err != nil {
			return nil, err
		}
		return re.FindAllString(s, n), nil
	}
	match := func(regex, s string) (bool, error) {
		re, err := t.pattern(regex)
		return err == nil && re.MatchString(s), err
	}
	replace := func(regex, s, by string) (string, error) {
		re, err := t.pattern(regex)
		if err != nil {
			return "", err
		}
		return re.ReplaceAllString(s, by), nil
	}
	replaceLiteral := func(regex, s, by string) (string, error) {
		re, err := t.pattern(regex)
		if err != nil {
			return "", err
		}
		return re.ReplaceAllLiteralString(s, by), nil
	}
	split := func(regex, s string, n int) ([]string, error) {
		re, err := t.pattern(regex)
		if err != nil {
			return nil, err
		}
		return re.Split(s, n), nil
	}
	return template.FuncMap{
		"regexFind": find, "mustRegexFind": find, "regexFindAll": findAll, "mustRegexFindAll": findAll, "mustRegexMatch": match,
		// As in sprig, what is no regular expression matches nothing.
		"regexMatch":      func(regex, s string) bool { ok, _ := match(regex, s); return ok },
		"regexReplaceAll": replace, "mustRegexReplaceAll": replace, "regexReplaceAllLiteral": replaceLiteral, "mustRegexReplaceAllLiteral": replaceLiteral,
		"regexSplit": split, "mustRegexSplit": split,
	}
}
