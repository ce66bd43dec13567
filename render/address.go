package render

import (
	"strings"

	"nuncio/internal/haproxy"
)

// valueRules are what the checks of values depend on beside the line.
type valueRules struct {
	// operators reports whether a value is the operators' own: it comes from keys that are no records, from the environment or
	// from settings. Nothing that a registrar writes may choose a socket of this machine.
	operators func(value string) bool
	private   string // directory of sockets that no value may name
}

// address checks the address of a server. Records have host and port; operators' own data may have what else HAProxy takes.
func (l *line) address(p *piece, word string) {
	err := haproxy.CheckAddress(word)
	if err != nil && l.rules.allow(p) && haproxy.CheckAnyAddress(word) == nil {
		err = nil
	}
	p.refuseIf(err)
	l.rules.refusePrivate(p, word)
}

// bindAddress checks addresses to listen on.
func (l *line) bindAddress(p *piece, word string) {
	err := checkBind(word)
	if err != nil && l.rules.allow(p) && haproxy.IsSocketAddress(word) {
		err = nil
	}
	p.refuseIf(err)
	l.rules.refusePrivate(p, word)
}

func (r *valueRules) allow(p *piece) bool {
	return r != nil && r.operators != nil && r.operators(p.printed.value)
}

// refusePrivate keeps values away from the sockets that control HAProxy and nuncio.
func (r *valueRules) refusePrivate(p *piece, word string) {
	if r != nil && r.private != "" && strings.Contains(word, strings.TrimSuffix(r.private, "/")+"/") {
		p.refuse("it is a socket in nuncio's own state directory")
	}
}

// ownData reports whether a value is the operators' own. With no record in the store, every key is.
func (t *Templates) ownData(value string) bool {
	if t.run.inMemo == "" { // what memo remembers must not depend on other keys
		snap := t.run.snap
		if len(snap.Services)+len(snap.Quarantined) == 0 {
			return true
		}
		for _, p := range snap.Extra {
			if strings.Contains(p.Value, value) || strings.Contains(p.Key, value) {
				return true
			}
		}
	}
	for _, setting := range t.opts.Settings {
		if strings.Contains(setting, value) {
			return true
		}
	}
	return t.environment[value]
}
