package reload

import (
	"fmt"
	"strings"
	"time"

	"nuncio/internal/haproxy"
)

// Planner lets tests plan without a HAProxy.
type Planner struct {
	planner
	Ghosts map[string]ghost
}

// SetDrift changes how often a Manager compares HAProxy's servers with what they should be.
func (m *Manager) SetDrift(every time.Duration) { m.live.every = every }

// SetAnySize makes a Manager prefer commands to a reload whatever they cost.
func (m *Manager) SetAnySize() { m.live.planner.anySize = true }

// NewPlanner makes one for a version such as "2.6".
func NewPlanner(version string) *Planner {
	v, err := haproxy.ParseVersion([]byte("HAProxy version " + version + ".0"))
	if err != nil {
		panic(err)
	}
	return &Planner{planner: newPlanner(v), Ghosts: map[string]ghost{}}
}

// Ghost notes that a server of a configuration is in maintenance, to be deleted.
func (p *Planner) Ghost(config, target string) {
	m, err := newModel(haproxy.NewText(config))
	if err != nil {
		panic(err)
	}
	backend, name, _ := strings.Cut(target, "/")
	for i, s := range m.sections {
		if !s.hasServers() || s.name != backend {
			continue
		}
		servers, err := m.servers(i, p.keywords)
		if err != nil {
			panic(err)
		}
		for _, v := range servers {
			if v.name == name {
				p.Ghosts[target] = ghost{backend: backend, server: v}
			}
		}
	}
}

// Plan returns the commands, with a line "--" between phases, or the reason for a reload.
func (p *Planner) Plan(now, next haproxy.Files) (commands []string, reason string) {
	m, err := newModel(now.Text(haproxy.ConfigFile))
	if err != nil {
		panic(err)
	}
	plan, reason := p.plan(m, now, next, p.Ghosts)
	if reason != "" {
		return nil, reason
	}
	for i, phase := range plan.phases {
		if i > 0 {
			commands = append(commands, "--")
		}
		for _, c := range phase {
			commands = append(commands, c.Line)
		}
	}
	for _, f := range plan.files {
		commands = append(commands, fmt.Sprintf("exchange %s %s %q", f.kind, f.name, f.entries))
	}
	for _, g := range plan.gone {
		commands = append(commands, fmt.Sprintf("later del server %s after %v", g.target(), g.linger.Round(time.Second)))
	}
	return commands, ""
}

// Diff cuts the sections of a text as a comparison with an older one does, and says which of them it found changed.
func Diff(before, after haproxy.Text) (sections []string, changed []int, reason string) {
	m, err := newModel(before)
	if err != nil {
		panic(err)
	}
	c, reason := m.diff(after)
	if reason != "" {
		return nil, nil, reason
	}
	return c.next.cut(), c.changed, ""
}

// Cut cuts a text into sections.
func Cut(text haproxy.Text) []string {
	m, err := newModel(text)
	if err != nil {
		panic(err)
	}
	return m.cut()
}

func (m *model) cut() (sections []string) {
	for _, s := range m.sections {
		sections = append(sections, s.raw)
	}
	return sections
}

// Gives tells whether the first commands of a plan are sent before it is known which worker hears them.
func (p *Planner) Gives(now, next haproxy.Files) bool {
	m, err := newModel(now.Text(haproxy.ConfigFile))
	if err != nil {
		panic(err)
	}
	plan, reason := p.plan(m, now, next, p.Ghosts)
	return reason == "" && plan.gives
}
