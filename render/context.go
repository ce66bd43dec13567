package render

import (
	"slices"
	"strings"

	"nuncio/internal/haproxy"
)

// place is the kind of word that HAProxy expects at a position of a line.
type place int

const (
	aWord         place = iota // one word of any kind: nuncio does not know the directive
	aText                      // any text
	aKeyword                   // a keyword: no value is allowed
	aName                      // the name of a proxy, a server or an ACL
	anAddress                  // the address of a server
	aBindAddress               // an address to listen on
	aHost                      // an address or part of one
	aToken                     // a number, a time, a plain word
	aHeaderName                // a header name: a log-format string in some versions of HAProxy, plain text in others
	aHeader                    // text that becomes part of a header
	aFormat                    // a log-format string
	aHeaderFormat              // a log-format string that becomes part of a header
	anExpression               // a sample expression
	aPattern                   // a pattern of an ACL
)

// place returns what HAProxy expects at the word with index at. Only words without a value count as grammar.
func (l *line) place(at int) place {
	keyword := l.words[0].Text
	switch {
	case at == 0:
		return aKeyword
	case keyword[0] == '.':
		if keyword == ".if" || keyword == ".elif" {
			return aToken
		}
		return aText
	case keyword == "no" || keyword == "default":
		return aKeyword
	case haproxy.IsSection(keyword):
		return aName
	}
	if p, found := l.condition(at); found {
		return p
	}
	if rule, known := directives[keyword]; known {
		return rule(l, at)
	}
	return aWord
}

// literal returns the text of a word that contains no value, or that is a keyword which options may print, and "" otherwise.
func (l *line) literal(i int) string {
	if i >= len(l.words) {
		return ""
	}
	if l.covered(l.words[i]) {
		if word := l.words[i]; i > 0 && slices.ContainsFunc(l.pieces, func(p piece) bool {
			return p.printed != nil && p.start == word.Start && p.end == word.End && l.isSafeOption(&p, word.Text)
		}) {
			return word.Text
		}
		return ""
	}
	return l.words[i].Text
}

// condition reports whether a word follows "if" or "unless", and what HAProxy expects there.
func (l *line) condition(at int) (p place, found bool) {
	begin := 0
	for i := 1; i < at; i++ {
		if word := l.literal(i); word == "if" || word == "unless" {
			begin = i
			break
		}
	}
	if begin == 0 {
		return 0, false
	}
	switch open := l.brace(begin, at); {
	case open == 0:
		return aName, true
	case at == open+1:
		return anExpression, true
	}
	return aPattern, true
}

// brace returns the index of the "{" that is open at a word, or 0.
func (l *line) brace(from, at int) (open int) {
	for i := from; i < at; i++ {
		switch l.literal(i) {
		case "{", "!{":
			open = i
		case "}":
			open = 0
		}
	}
	return open
}

// patternStart returns the index of the first word after the sample expression that patterns are compared with.
func (l *line) patternStart(at int) int {
	if l.words[0].Text == "acl" {
		return 3
	}
	return l.brace(1, at) + 2
}

// options returns the place of a word in a list of options that begins at from. arguments has the arguments of each option.
func (l *line) options(from, at int, arguments map[string][]place) place {
	for i := from; i <= at; {
		if i == at {
			return aKeyword
		}
		key, _, _ := strings.Cut(l.literal(i), "(")
		args := arguments[key]
		if at-i <= len(args) {
			return args[at-i-1]
		}
		i += 1 + len(args)
	}
	return aKeyword
}

// sequence describes a directive with arguments in a fixed order. The last place applies to all further arguments.
func sequence(places ...place) func(*line, int) place {
	return func(_ *line, at int) place { return places[min(at, len(places))-1] }
}

// behind describes a directive with arguments in a fixed order, followed by options.
func behind(arguments map[string][]place, places ...place) func(*line, int) place {
	return func(l *line, at int) place {
		if at <= len(places) {
			return places[at-1]
		}
		return l.options(len(places)+1, at, arguments)
	}
}

// directives has what HAProxy expects after a keyword. A directive that is missing here accepts any word.
var directives = map[string]func(*line, int) place{
	"server":          behind(serverOptions, aName, anAddress),
	"default-server":  behind(serverOptions),
	"server-template": behind(serverOptions, aName, aToken, anAddress),
	"bind":            behind(bindOptions, aBindAddress),

	"use_backend": sequence(aName), "default_backend": sequence(aName), "use-server": sequence(aName),
	"acl":  sequence(aName, anExpression, aPattern),
	"peer": sequence(aName, anAddress, aToken), "nameserver": sequence(aName, anAddress), "mailer": sequence(aName, anAddress),
	"table": sequence(aName, aToken), "log": sequence(aHost, aToken),
	"source": sequence(aHost, aToken), "dispatch": sequence(anAddress),

	"log-format": sequence(aFormat), "log-format-sd": sequence(aFormat), "error-log-format": sequence(aFormat), "unique-id-format": sequence(aFormat),

	"http-request": rules(1), "http-response": rules(1), "http-after-response": rules(1),
	"tcp-request": rules(2), "tcp-response": rules(2), "quic-initial": rules(1),
	"redirect":   behind(redirectOptions),
	"http-error": behind(returnOptions), "http-check": check, "tcp-check": check,

	"option": func(l *line, at int) place {
		if at == 1 {
			return aKeyword
		}
		if l.literal(1) == "httpchk" {
			return aHeader
		}
		return aToken
	},
	"stats": func(l *line, at int) place {
		if at == 1 || l.literal(1) == "socket" {
			return aKeyword
		}
		return aWord
	},
	"setenv": sequence(aName, aText), "presetenv": sequence(aName, aText), "unsetenv": sequence(aName),
	"stick": sequence(aKeyword, aKeyword, anExpression, aToken), "stick-table": sequence(aToken), "balance": balance, "hash-type": sequence(aToken),
	"capture": sequence(aKeyword), "declare": sequence(aKeyword), "filter": sequence(aKeyword), "email-alert": sequence(aKeyword, aToken),
	"mode": sequence(aToken), "maxconn": sequence(aToken), "retries": sequence(aToken), "fullconn": sequence(aToken), "timeout": sequence(aKeyword, aToken),
	"description": sequence(aText), "monitor-uri": sequence(aText), "errorfile": sequence(aToken, aText), "errorloc": sequence(aToken, aHeader),
	"errorloc302": sequence(aToken, aHeader), "errorloc303": sequence(aToken, aHeader), "http-send-name-header": sequence(aToken),
}

func balance(l *line, at int) place {
	if strings.Contains(l.words[at].Text, "(") {
		return anExpression
	}
	return aToken
}

var token, text = []place{aToken}, []place{aText}

var serverOptions = map[string][]place{
	"addr": {aHost}, "port": token, "inter": token, "fastinter": token, "downinter": token, "rise": token, "fall": token,
	"weight": token, "maxconn": token, "minconn": token, "maxqueue": token, "id": token, "cookie": {aName}, "slowstart": token,
	"observe": token, "error-limit": token, "on-error": token, "on-marked-down": token, "on-marked-up": token, "track": token,
	"ca-file": text, "crl-file": text, "crt": text, "verify": token, "verifyhost": {aHost}, "alpn": token, "npn": token, "ciphers": text, "ciphersuites": text,
	"ssl-min-ver": token, "ssl-max-ver": token, "sni": {anExpression}, "check-sni": text, "check-alpn": token, "check-proto": token, "proto": token,
	"source": {aHost}, "resolvers": {aName}, "resolve-prefer": token, "resolve-net": token, "resolve-opts": token, "init-addr": token, "redir": text,
	"agent-addr": {aHost}, "agent-port": token, "agent-inter": token, "agent-send": text, "pool-max-conn": token, "pool-low-conn": token, "pool-purge-delay": token,
	"max-reuse": token, "tcp-ut": token, "namespace": token, "guid": token, "ws": token, "shard": token, "pool-conn-name": {anExpression}, "hash-key": token,
	"log-proto": token, "socks4": {anAddress}, "set-proxy-v2-tlv-fmt": {aFormat}, "proxy-v2-options": token, "init-state": token, "curves": text, "sigalgs": text,
}

var bindOptions = map[string][]place{
	"crt": text, "ca-file": text, "crt-list": text, "crl-file": text, "ca-verify-file": text, "alpn": token, "npn": token, "ciphers": text, "ciphersuites": text,
	"name": {aName}, "id": token, "maxconn": token, "backlog": token, "nice": token, "ssl-min-ver": token, "ssl-max-ver": token, "verify": token,
	"mss": token, "interface": token, "tcp-ut": token, "namespace": token, "process": token, "thread": token, "shards": token, "proto": token,
	"curves": text, "sigalgs": text, "ecdhe": token, "user": token, "group": token, "mode": token, "level": token, "severity-output": token, "uid": token, "gid": token,
}

var redirectOptions = map[string][]place{
	"location": {aHeader}, "prefix": {aHeader}, "scheme": {aHeader}, "code": token, "set-cookie": {aHeader}, "clear-cookie": {aHeader},
}
