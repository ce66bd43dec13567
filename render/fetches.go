package render

import "strings"

// stringFetches are sample fetches whose patterns HAProxy compares as text without -m, so that "eq" or "le" among them is
// text too. Their variants _beg, _dir, _dom, _end, _reg and _sub are as well; _len is not.
var stringFetches = map[string]bool{
	"base": true, "capture.req.hdr": true, "capture.req.uri": true, "cook": true, "hdr": true, "path": true, "pathq": true, "query": true, "req.cook": true, "req.fhdr": true,
	"req.hdr": true, "req.ssl_sni": true, "req_ssl_sni": true, "res.cook": true, "res.fhdr": true, "res.hdr": true, "shdr": true, "scook": true, "ssl_fc_sni": true,
	"ssl_c_s_dn": true, "ssl_c_i_dn": true, "url": true, "url_param": true, "urlp": true, "req.body": true, "req.body_param": true, "method": true,
}

var stringVariants = []string{"_beg", "_dir", "_dom", "_end", "_reg", "_sub"}

// stringConverters leave text what it is.
var stringConverters = map[string]bool{"lower": true, "upper": true, "field": true, "word": true, "url_dec": true, "ltrim": true, "rtrim": true, "regsub": true}

// comparesText reports whether the sample expression in front of a pattern makes HAProxy compare text.
func (l *line) comparesText(at int) bool {
	expression := l.literal(l.patternStart(at) - 1)
	parts := splitOutside(expression)
	name, _, _ := strings.Cut(parts[0], "(")
	for _, variant := range stringVariants {
		name = strings.TrimSuffix(name, variant)
	}
	if !stringFetches[name] {
		return false
	}
	for _, converter := range parts[1:] {
		if name, _, _ := strings.Cut(converter, "("); !stringConverters[name] {
			return false
		}
	}
	return true
}

// splitOutside cuts at commas outside parentheses.
func splitOutside(expression string) []string {
	depth := 0
	return strings.FieldsFunc(expression+" ", func(r rune) bool {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		}
		return r == ' ' || r == ',' && depth == 0
	})
}
