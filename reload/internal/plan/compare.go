package plan

import (
	"fmt"
	"net/netip"
	"strings"

	"nuncio/internal/haproxy"
)

// DeleteCommand returns the command that deletes a server which is in maintenance, or a backend that is not published.
func DeleteCommand(target string) haproxy.Command {
	if !strings.Contains(target, "/") {
		return haproxy.Command{Line: "del backend " + target, Answers: true}
	}
	return haproxy.Command{Line: "del server " + target, Answers: true}
}

// StateCommand returns the command that shows the servers of a section.
func (m *Model) StateCommand(section int) haproxy.Command {
	return haproxy.Command{Line: "show servers state " + m.sections[section].name}
}

// Names returns the names that sections have.
func (m *Model) Names() map[string]bool {
	names := make(map[string]bool, len(m.sections))
	for _, s := range m.sections {
		names[s.name] = true
	}
	return names
}

// Batch returns sections whose servers can be compared with a worker's, from section first on, until their texts have size
// bytes, and the section to go on with; 0 at the end.
func (m *Model) Batch(first, size int) (sections []int, next int) {
	for i := first; i < len(m.sections); i++ {
		if size <= 0 {
			return sections, i
		}
		s := m.sections[i]
		if s.hasServers() && s.dynamicBlocked == "" && haproxy.CheckName(s.name) == nil {
			sections = append(sections, i)
			size -= len(s.text)
		}
	}
	return sections, 0
}

// Compare returns the differences between the servers that a worker shows and those of a section, each as a text. Leaving
// servers, by target, may be there in maintenance.
func (p Planner) Compare(m *Model, section int, reply haproxy.Reply, leaving map[string]Leaving) (drift []string, err error) {
	backend := m.sections[section].name
	shown, err := haproxy.ParseServers(reply.Text)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", backend, err)
	}
	desired, err := m.servers(section, p.Keywords)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]haproxy.ServerState, len(shown))
	for _, f := range shown {
		byName[f.Name] = f
	}
	for _, v := range desired {
		f, ok := byName[v.name]
		delete(byName, v.name)
		what := "it is missing"
		if ok {
			what = v.differs(f)
		}
		if what != "" {
			drift = append(drift, fmt.Sprintf("server %s/%s: %s", backend, v.name, what))
		}
	}
	for _, f := range shown {
		if _, surplus := byName[f.Name]; !surplus {
			continue
		}
		target := backend + "/" + f.Name
		if _, known := leaving[target]; known && f.Admin&haproxy.AdminMaint != 0 {
			continue
		}
		drift = append(drift, "server "+target+": it should not be there")
	}
	return drift, nil
}

// Surplus returns the servers in maintenance that a worker shows in a section and the section's lines do not have: leaving
// servers, of which a nuncio that starts knows nothing.
func (p Planner) Surplus(m *Model, section int, reply haproxy.Reply) ([]Leaving, error) {
	shown, err := haproxy.ParseServers(reply.Text)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", m.sections[section].name, err)
	}
	desired, err := m.servers(section, p.Keywords)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(desired))
	for _, v := range desired {
		wanted[v.name] = true
	}
	var found []Leaving
	for _, f := range shown {
		if !wanted[f.Name] && f.Admin&haproxy.AdminMaint != 0 {
			d := builder{Planner: p, Plan: Plan{Next: m}, section: section}
			found = append(found, Leaving{Backend: m.sections[section].name, Name: f.Name, Linger: d.linger()})
		}
	}
	return found, nil
}

// differs returns how a server differs from its line, as far as the line decides; empty if it does not.
func (v *server) differs(f haproxy.ServerState) string {
	if v.isIPPort {
		ip, err := netip.ParseAddr(f.Addr)
		if err != nil || ip != v.addr.Addr() || f.Port != int(v.addr.Port()) {
			return fmt.Sprintf("its address is %s port %d, not %s", f.Addr, f.Port, v.address)
		}
	}
	state := f.Admin & (haproxy.AdminMaint | haproxy.AdminDrain)
	switch {
	case v.immutableReason != "":
		return "" // of such a line nothing more is known for certain
	case !v.has("agent-check") && f.Weight != v.weight:
		return fmt.Sprintf("its weight is %d, not %d", f.Weight, v.weight)
	case v.disabled && state&haproxy.AdminMaint == 0:
		return "it is not in maintenance"
	case !v.disabled && state != 0:
		return "it is in maintenance or drains"
	case v.has("check") != (f.Check&haproxy.CheckEnabled != 0):
		return "its health checks are not as configured"
	case v.id != 0 && f.ID != v.id:
		return fmt.Sprintf("its id is %d, not %d", f.ID, v.id)
	}
	return ""
}
