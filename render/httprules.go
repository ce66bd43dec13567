package render

import "strings"

// rules describes http-request, tcp-request content and so on. base is the index of the action.
func rules(base int) func(*line, int) place {
	return func(l *line, at int) place {
		if l.words[0].Text == "tcp-request" && l.literal(1) == "inspect-delay" {
			return aToken
		}
		if at < base {
			return aKeyword
		}
		if at == base { // set-map({{ file }}): part of the action, but never the action itself
			return anExpression
		}
		action, _, _ := strings.Cut(l.literal(base), "(")
		if places, known := actions[action]; known {
			if at-base <= len(places) {
				return places[at-base-1]
			}
			return aKeyword
		}
		switch action {
		case "redirect":
			return l.options(base+1, at, ruleRedirectOptions)
		case "return", "deny", "tarpit", "reject", "auth", "silent-drop", "wait-for-body":
			return l.options(base+1, at, returnOptions)
		case "track-sc0", "track-sc1", "track-sc2", "track-sc", "capture":
			if at == base+1 {
				return anExpression
			}
			return l.options(base+2, at, returnOptions)
		}
		return aToken
	}
}

// actions has the rule actions whose arguments have a fixed order.
var actions = map[string][]place{
	"set-header": {aHeaderName, aHeaderFormat}, "add-header": {aHeaderName, aHeaderFormat}, "early-hint": {aHeaderName, aHeaderFormat}, "del-header": {aHeaderName},
	"replace-header": {aHeaderName, aText, aHeaderFormat}, "replace-value": {aHeaderName, aText, aHeaderFormat},
	"replace-path": {aText, aHeaderFormat}, "replace-pathq": {aText, aHeaderFormat}, "replace-uri": {aText, aHeaderFormat},
	"set-method": {aHeaderFormat}, "set-path": {aHeaderFormat}, "set-pathq": {aHeaderFormat}, "set-query": {aHeaderFormat}, "set-uri": {aHeaderFormat},
	"set-var-fmt": {aFormat}, "set-var": {anExpression}, "set-src": {anExpression}, "set-dst": {anExpression}, "set-dst-port": {anExpression},
	"set-src-port": {anExpression}, "add-acl": {aFormat}, "del-acl": {aFormat}, "del-map": {aFormat}, "set-map": {aFormat, aFormat},
	"set-status": {aToken, aKeyword, aHeader}, "cache-use": {aName}, "cache-store": {aName}, "use-service": {aName},
}

var returnOptions = map[string][]place{
	"status": token, "deny_status": token, "content-type": {aHeader}, "string": text, "lf-string": {aFormat}, "file": text, "lf-file": text,
	"errorfile": text, "errorfiles": {aName}, "hdr": {aHeaderName, aHeaderFormat}, "realm": {aHeader}, "table": {aName}, "len": token, "id": token,
	"time": token, "at-least": token,
}

var ruleRedirectOptions = map[string][]place{
	"location": {aHeaderFormat}, "prefix": {aHeaderFormat}, "scheme": {aHeaderFormat}, "code": token, "set-cookie": {aHeader}, "clear-cookie": {aHeader},
}

// check describes http-check and tcp-check.
func check(l *line, at int) place {
	if at == 1 {
		return aKeyword
	}
	action, _, _ := strings.Cut(l.literal(1), "(")
	switch action {
	case "set-var-fmt":
		return aFormat
	case "set-var":
		return anExpression
	case "comment":
		return aText
	case "send":
		if l.words[0].Text == "tcp-check" && at == 2 {
			return aText
		}
	case "send-lf":
		if at == 2 {
			return aFormat
		}
	case "send-binary":
		if at == 2 {
			return aToken
		}
	}
	return l.options(2, at, checkOptions)
}

var checkOptions = map[string][]place{
	"meth": token, "uri": {aHeader}, "uri-lf": {aHeaderFormat}, "ver": token, "hdr": {aHeaderName, aHeaderFormat}, "body": text, "body-lf": {aFormat},
	"port": token, "addr": {aHost}, "sni": text, "alpn": token, "proto": token, "comment": text, "min-recv": token, "on-success": {aFormat}, "on-error": {aFormat},
	"status": token, "rstatus": text, "string": text, "rstring": text, "string-lf": {aFormat}, "binary": token, "rbinary": token, "binary-lf": {aFormat},
	"status-code": {anExpression}, "ok-status": token, "error-status": token, "tout-status": token,
	"name": text, "name-lf": {aFormat}, "value": text, "value-lf": {aFormat},
}
