package register

import (
	"maps"
	"strings"
)

// decision is what became of one container.
type decision struct {
	records           []Record
	reasons, warnings []string
	homeless          bool // a record is missing only because there is no address to advertise
}

// memo remembers decisions about containers whose facts have not changed: one event on a busy host must not cost
// a look at every label of every container. It belongs to one Rules.
type memo struct {
	adv  Advertise
	last map[*Container]decision
}

// recall decides about one container, or remembers. A guest of another container's network depends on that one too.
func (m *memo) recall(c *Container, adv Advertise, decide func() decision) decision {
	if m == nil || strings.HasPrefix(c.NetworkMode, "container:") {
		return decide()
	}
	if m.adv != adv {
		m.adv, m.last = adv, nil
	}
	d, ok := m.last[c]
	if !ok {
		d = decide()
		if m.last == nil {
			m.last = map[*Container]decision{}
		}
		m.last[c] = d
	}
	return d
}

// forget drops what is not in use any more.
func (m *memo) forget(containers map[string]*Container) {
	if m == nil {
		return
	}
	maps.DeleteFunc(m.last, func(c *Container, _ decision) bool { return containers[c.ID] != c })
}
