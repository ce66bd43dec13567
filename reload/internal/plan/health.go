package plan

import (
	"strings"

	"nuncio/internal/haproxy"
)

// Health decides what of a worker's knowledge about servers is still true for a configuration.
type Health struct {
	model    *Model
	keywords haproxy.ServerKeywords
	sections map[string]int                // by name of the backend
	servers  map[string]map[string]*server // by backend and name, as far as they were asked for
	all      bool                          // a server may start without being up
}

// NewHealth is for the configuration of m.
func (p Planner) NewHealth(m *Model) *Health {
	h := &Health{model: m, keywords: p.Keywords, sections: map[string]int{}, servers: map[string]map[string]*server{}}
	for i, s := range m.sections {
		if s.hasServers() {
			h.sections[s.name] = i
		}
		h.all = h.all || strings.Contains(s.text, "init-state")
	}
	return h
}

// Applies reports whether the health of a server is worth passing on: it differs from that of a server that starts, the
// configuration has the same server with the same address, and checks go on. Where servers start down, being up differs too.
func (h *Health) Applies(s haproxy.ServerState) bool {
	if s.Out() || s.Check&haproxy.CheckEnabled == 0 || s.Well() && !h.all {
		return false
	}
	v := h.server(s.Backend, s.Name)
	return v != nil && !v.disabled && v.address == s.Address() && v.has("check") && !v.has("track")
}

// Resolved reports whether a server has an address by a resolver that the configuration has too. A new worker that starts
// without resolving names gets no address but from the state file; the resolver corrects it later.
func (h *Health) Resolved(s haproxy.ServerState) bool {
	if s.Out() || s.FQDN == "-" || s.FQDN == "" || s.Addr == "-" {
		return false
	}
	v := h.server(s.Backend, s.Name)
	return v != nil && !v.disabled && v.address == s.Address() && v.has("resolvers")
}

func (h *Health) server(backend, name string) *server {
	known, asked := h.servers[backend]
	if !asked {
		if i, found := h.sections[backend]; found {
			list, _ := h.model.servers(i, h.keywords) // a configuration that does not lex is never loaded
			known = make(map[string]*server, len(list))
			for _, v := range list {
				known[v.name] = v
			}
		}
		h.servers[backend] = known
	}
	return known[name]
}
