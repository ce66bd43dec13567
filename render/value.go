package render

import (
	"fmt"
	"strings"

	"nuncio/internal/haproxy"
)

// checkValue refuses a value that its place does not allow, and notes what it needs there besides quoting.
func (l *line) checkValue(p *piece) {
	at := -1
	for i, w := range l.words {
		if w.Start <= p.start && p.end <= w.End {
			at = i
			break
		}
	}
	if at < 0 && p.quoting == haproxy.Bare && p.value == "" && l.endsOptional(p) {
		return // the word is left out
	}
	if at < 0 || l.words[at].Text == "" {
		p.refuse("an empty value: HAProxy 2.6 and 3.0 drop the rest of such a line; print a default instead, or leave the word out with {{ if }}")
		return
	}
	word := l.words[at].Text
	switch l.place(at) {
	case aKeyword:
		if !l.isSafeOption(p, word) {
			p.refuse(l.keywordReason(at))
		}
	case aName:
		l.name(p, at)
	case anAddress:
		l.address(p, word)
	case aBindAddress:
		l.bindAddress(p, word)
	case aHost:
		p.allow(".:-[]_*/", "an address holds letters, digits and . : - [ ] only")
	case aToken:
		p.allow("_.:/,%+-", "want a number, a time or a plain word: letters, digits and _ . : / , % + - only")
		l.notReserved(p, at)
	case aWord:
		l.notReserved(p, at)
	case aHeaderName:
		p.allow("_.-", "the name of a header holds letters, digits and _ . - only")
	case aHeader:
		p.refuseControls(endsHeader)
	case aFormat:
		l.format(p, at)
	case aHeaderFormat:
		p.refuseControls(endsHeader)
		l.format(p, at)
	case anExpression:
		l.expression(p, at)
	case aPattern:
		l.pattern(p, at)
	case aText:
	}
}

// optionalFrom has the lines that may end before the word with this index, by their keyword.
var optionalFrom = map[string]int{"bind": 2, "server": 3, "default-server": 2, "server-template": 4, "log": 3, "default_backend": 1}

// endsOptional reports whether an empty value would be the last word of its line, and the line is complete without it.
func (l *line) endsOptional(p *piece) bool {
	from, known := optionalFrom[l.words[0].Text]
	keyword := l.words[0].Text
	if keyword != "log" && keyword != "default_backend" && known && l.place(len(l.words)) != aKeyword {
		return false // the argument of an option
	}
	return known && len(l.words) >= from && strings.Trim(string(l.text[p.end:]), " \t") == ""
}

// HAProxy sends such bytes unchanged.
const endsHeader = "it holds a line break or another control character, which would begin another header"

func (p *piece) refuseIf(err error) {
	if err != nil {
		p.refuse(err.Error())
	}
}

// allow refuses a value that has anything but letters, digits and the bytes of more.
func (p *piece) allow(more, reason string) {
	for i := range len(p.value) {
		c := p.value[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			p.refuse(reason)
			return
		}
	}
}

func (l *line) keywordReason(at int) string {
	if at == 0 {
		return "a value cannot be the keyword of a line, or a part of it"
	}
	return fmt.Sprintf("a value is not allowed here, after %q, where HAProxy expects a keyword",
		shortWord(l.words[at-1].Text))
}

func shortWord(s string) string {
	if len(s) > 30 {
		return s[:30]
	}
	return s
}

// anyName has the keywords after which HAProxy accepts any name, even a word of its conditions: a service may be called "or".
var anyName = map[string]bool{
	"frontend": true, "backend": true, "listen": true, "server": true, "use_backend": true, "default_backend": true, "use-server": true,
}

func (l *line) name(p *piece, at int) {
	p.allow("_.:-", "a name holds letters, digits and _ . : - only")
	word := l.words[at].Text
	if strings.Contains(word, "%[") { // use_backend with a name that HAProxy looks up for each request
		l.format(p, at)
		return
	}
	free := at == 1 && anyName[l.literal(0)]
	if !free && (word == "or" || word == "if" || word == "unless") {
		p.refuse("the word is part of HAProxy's conditions: use a different name")
	}
	p.refuseIf(haproxy.CheckName(strings.TrimLeft(word, "!")))
}

// notReserved refuses words that HAProxy treats as grammar even in quotes.
func (l *line) notReserved(p *piece, at int) {
	switch l.words[at].Text {
	case "if", "unless", "or", "||", "{", "}", "!":
		p.refuse("the word is part of HAProxy's grammar here, even in quotes")
	}
}

// prefix returns the text of a word before the value.
func (l *line) prefix(p *piece, at int) string {
	begin := string(l.text[l.words[at].Start:p.start])
	switch p.quoting {
	case haproxy.Weak:
		begin += `"`
	case haproxy.Strong:
		begin += `'`
	}
	words, err := haproxy.AppendWords(nil, begin, nil)
	if err != nil || len(words) == 0 {
		return ""
	}
	return words[0].Text
}

const inExpression = "inside a sample expression a value may hold letters, digits and _ . : / - only: HAProxy reads the rest as grammar; look other values up in a map"

// expression allows a value only as an argument, inside parentheses, of a fetch or a converter that the template names.
func (l *line) expression(p *piece, at int) {
	before := l.prefix(p, at)
	if strings.Count(before, "(") <= strings.Count(before, ")") {
		p.refuse("a value cannot choose a fetch or a converter: write it in the template")
		return
	}
	p.allow("_.:/-", inExpression)
}

// format prepares a value for a log-format string.
func (l *line) format(p *piece, at int) {
	switch before := l.prefix(p, at); formatState(before) {
	case inText:
		p.format = true
	case inSample:
		sample := before[strings.LastIndex(before, "%[")+2:]
		if strings.Count(sample, "(") <= strings.Count(sample, ")") {
			p.refuse("a value cannot choose a fetch or a converter: write it in the template")
		}
		p.allow("_.:/-", inExpression)
	case inVariable:
		p.refuse(`it directly follows "%", where it would select a variable: write "%%" for the character in the template`)
	}
}

type logState int

const (
	inText logState = iota
	inSample
	inVariable
)

// formatState returns what the next byte of a log-format string would be part of.
func formatState(s string) logState {
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			continue
		}
		i++
		if i < len(s) && s[i] == '%' {
			continue
		}
		if i < len(s) && s[i] == '{' {
			end := strings.IndexByte(s[i:], '}')
			if end < 0 {
				return inVariable
			}
			i += end + 1
		}
		if i < len(s) && s[i] == '[' {
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return inSample
			}
			i += end
			continue
		}
		from := i
		for i < len(s) && (s[i] >= 'a' && s[i] <= 'z' || s[i] >= 'A' && s[i] <= 'Z') {
			i++
		}
		if i == len(s) || i == from {
			return inVariable
		}
		i--
	}
	return inText
}

// pattern prepares a value for a list of ACL patterns.
func (l *line) pattern(p *piece, at int) {
	word := l.words[at].Text
	flags, method := true, false
	i := l.patternStart(at)
	for ; i < at && flags; i++ {
		switch text := l.words[i].Text; {
		case text == "--":
			flags = false
		case text == "-m" || text == "-u" || text == "-f":
			method = method || text == "-m"
			if i+1 == at { // the value is the flag's argument
				if text != "-f" {
					p.refuse("a value cannot choose how patterns are compared: write it in the template")
				}
				p.allow("_.-/", "the name of a file in the generation's directory is wanted")
				if strings.HasPrefix(word, "/") || strings.Contains(word, "..") {
					p.refuse("a value cannot name a file outside the directory of the configuration")
				}
				return
			}
			i++
		case !strings.HasPrefix(text, "-"):
			flags = false
		}
	}
	if word == "{" || word == "}" {
		p.refuse("a brace opens or closes a condition, even in quotes")
	}
	if flags && strings.HasPrefix(word, "-") {
		if l.prefix(p, at) == "" {
			p.dashes = true
		} else {
			p.refuse(`the word begins with "-", which makes it a flag: write "--" before it in the template`)
		}
	}
	switch word {
	case "eq", "ge", "gt", "le", "lt":
		if !method && !l.comparesText(at) {
			p.refuse(`HAProxy reads it as a comparison: if it is text, write "-m str" before the value in the template`)
		}
	}
}

// checkBind allows addresses with ports on a bind line, but no socket files and variables.
func checkBind(word string) error {
	for address := range strings.SplitSeq(word, ",") {
		for _, family := range []string{"ipv4@", "ipv6@"} {
			address = strings.TrimPrefix(address, family)
		}
		at := strings.LastIndexByte(address, ':')
		if at < 0 {
			return fmt.Errorf("want an address such as :80, *:80, 192.0.2.1:80 or [::]:80")
		}
		host, ports := strings.Trim(address[:at], "[]"), address[at+1:]
		if host != "" && host != "*" && haproxy.CheckHost(host) != nil {
			return fmt.Errorf("want an address such as :80, *:80, 192.0.2.1:80 or [::]:80")
		}
		for port := range strings.SplitSeq(ports, "-") {
			if haproxy.CheckAddress("x:"+port) != nil {
				return fmt.Errorf("the port must be a number from 1 to 65535")
			}
		}
	}
	return nil
}
