package reload

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"nuncio/internal/haproxy"
)

const (
	// settleLimit is how long HAProxy may take until it shows what it was told: 3.0 and later change an address a
	// moment after they have answered.
	settleLimit = 2 * time.Second
	// settlePause is the first wait between two looks.
	settlePause = time.Millisecond
)

// carryOut sends a plan to the worker that serves and returns nil once that worker shows what was wanted. After an error its state is
// unknown, and only a reload makes it known again.
func (h *instance) carryOut(ctx context.Context, p *runtimePlan, keywords haproxy.ServerKeywords, ghosts map[string]ghost) error {
	phases := p.phases
	var first []haproxy.Command
	if p.gives {
		first, phases = phases[0], phases[1:]
	}
	s, err := h.session(ctx, first)
	if err != nil {
		return err
	}
	defer s.Close()
	files := p.files
	if p.gives {
		if err := exchangeFiles(ctx, s, files); err != nil {
			return err
		}
		files = nil
	}
	for _, commands := range phases {
		if err := send(ctx, s, commands); err != nil {
			return err
		}
		if err := exchangeFiles(ctx, s, files); err != nil {
			return err
		}
		files = nil
	}
	if err := exchangeFiles(ctx, s, files); err != nil {
		return err
	}
	return confirmServers(ctx, s, p.next, p.backends, keywords, ghosts)
}

// session opens a connection to the worker that is known to serve. Another one has not heard what this one was told. The
// first commands are sent before it is known who answers, so they must be good for any worker; an error, such as that of
// another one answering, must lead to a reload.
func (h *instance) session(ctx context.Context, first []haproxy.Command) (*haproxy.Session, error) {
	s, replies, err := h.runtime.Begin(ctx, append(slices.Clip(first), haproxy.Command{Line: "show info"}))
	if err != nil {
		return nil, err
	}
	info, err := haproxy.ParseInfo(replies[len(first)].Text)
	if err == nil && info.Pid != h.worker {
		err = fmt.Errorf("worker %d answers instead of %d: something else has reloaded haproxy", info.Pid, h.worker)
	}
	if err == nil {
		err = worked(first, replies)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// send wants every command to work.
func send(ctx context.Context, s *haproxy.Session, commands []haproxy.Command) error {
	if len(commands) == 0 {
		return nil
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return err
	}
	return worked(commands, replies)
}

func worked(commands []haproxy.Command, replies []haproxy.Reply) error {
	for i, c := range commands {
		if unexpected(c, replies[i]) {
			return &haproxy.CommandError{Command: c.Line, Reply: replies[i]}
		}
	}
	return nil
}

// unexpected is stricter than Refused: a command whose success is silent has to be silent.
func unexpected(c haproxy.Command, r haproxy.Reply) bool {
	switch {
	case r.Refused():
		return true
	case strings.HasPrefix(c.Line, "add server "), strings.HasPrefix(c.Line, "del server "), strings.Contains(c.Line, " addr "):
		return r.Text == "" || r.Severity == haproxy.NoSeverity
	}
	return r.Text != ""
}

func exchangeFiles(ctx context.Context, s *haproxy.Session, files []fileChange) error {
	for _, f := range files {
		replies, err := s.Do(ctx, []haproxy.Command{{Line: "prepare " + f.kind + " " + f.name}})
		if err != nil {
			return err
		}
		version, err := haproxy.ParseVersionReply(replies[0].Text)
		if err != nil {
			return fmt.Errorf("file %s: %w", f.name, err)
		}
		if err := send(ctx, s, f.exchange(version)); err != nil {
			return err
		}
		if replies, err = s.Do(ctx, []haproxy.Command{{Line: "show " + f.kind + " " + f.name}}); err != nil {
			return err
		}
		found, err := haproxy.ParsePatterns(replies[0].Text)
		if err != nil {
			return err
		}
		if !slices.Equal(found, f.entries) {
			return fmt.Errorf("file %s: haproxy shows %d entries that are not the %d wanted ones", f.name, len(found), len(f.entries))
		}
	}
	return nil
}

// confirmServers waits until HAProxy shows the servers that some sections of a configuration have.
func confirmServers(ctx context.Context, s *haproxy.Session, m *model, sections []int, keywords haproxy.ServerKeywords, ghosts map[string]ghost) error {
	deadline := time.Now().Add(settleLimit)
	for pause := settlePause; ; pause *= 2 {
		drift, err := compare(ctx, s, m, sections, keywords, ghosts)
		if err != nil {
			return err
		}
		if len(drift) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("haproxy does not show what it was told: %s", drift[0])
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drifted is a server that is not as the configuration wants it.
type drifted struct {
	target string
	what   string
	want   *server // nil for one that should not be there
	repair []haproxy.Command
}

func (d drifted) String() string { return "server " + d.target + ": " + d.what }

// compare looks for differences between the servers of a configuration and those of a worker.
func compare(ctx context.Context, s *haproxy.Session, m *model, sections []int, keywords haproxy.ServerKeywords, ghosts map[string]ghost) ([]drifted, error) {
	commands := make([]haproxy.Command, len(sections))
	for i, n := range sections {
		commands[i].Line = "show servers state " + m.sections[n].name
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return nil, err
	}
	var drift []drifted
	for i, n := range sections {
		found, err := haproxy.ParseServers(replies[i].Text)
		if err != nil {
			return nil, fmt.Errorf("backend %s: %w", m.sections[n].name, err)
		}
		want, err := m.servers(n, keywords)
		if err != nil {
			return nil, err
		}
		drift = append(drift, compareBackend(m.sections[n].name, want, found, ghosts)...)
	}
	return drift, nil
}

func compareBackend(backend string, want []*server, found []haproxy.ServerState, ghosts map[string]ghost) []drifted {
	var drift []drifted
	byName := make(map[string]haproxy.ServerState, len(found))
	for _, f := range found {
		byName[f.Name] = f
	}
	for _, v := range want {
		target := backend + "/" + v.name
		f, ok := byName[v.name]
		delete(byName, v.name)
		if !ok {
			drift = append(drift, drifted{target: target, what: "it is missing", want: v})
			continue
		}
		if d := v.compare(target, f); d.what != "" {
			drift = append(drift, d)
		}
	}
	for _, f := range found {
		if _, left := byName[f.Name]; !left {
			continue
		}
		target := backend + "/" + f.Name
		if _, known := ghosts[target]; known && f.Admin&haproxy.AdminMaint != 0 {
			continue
		}
		drift = append(drift, drifted{target: target, what: "it should not be there"})
	}
	return drift
}

// compare says how a server differs from its line, as far as a line decides, and what would repair it.
func (v *server) compare(target string, f haproxy.ServerState) drifted {
	d := drifted{target: target, want: v}
	note := func(what string, repair ...haproxy.Command) {
		if d.what != "" {
			d.what += ", "
		}
		d.what += what
		d.repair = append(d.repair, repair...)
	}
	line := func(format string) haproxy.Command { return haproxy.Command{Line: fmt.Sprintf(format, target)} }
	if v.literal {
		ip, err := netip.ParseAddr(f.Addr)
		if err != nil || ip != v.addr.Addr() || f.Port != int(v.addr.Port()) {
			note(fmt.Sprintf("its address is %s port %d, not %s", f.Addr, f.Port, v.address), v.moveCommands(target)...)
		}
	}
	if v.fixed != "" {
		return d // of such a line nothing more is known for certain
	}
	if !v.agent && f.Weight != v.weight {
		note(fmt.Sprintf("its weight is %d, not %d", f.Weight, v.weight),
			haproxy.Command{Line: fmt.Sprintf("set server %s weight %d", target, v.weight)})
	}
	switch state := f.Admin & (haproxy.AdminMaint | haproxy.AdminDrain); {
	case v.disabled && state&haproxy.AdminMaint == 0:
		note("it is not in maintenance", line("set server %s state maint"))
	case !v.disabled && state != 0:
		note("it is in maintenance or drains", line("set server %s state ready"))
	}
	if v.check != (f.Check&haproxy.CheckEnabled != 0) {
		note("its health checks are not as configured", line(map[bool]string{true: "enable health %s", false: "disable health %s"}[v.check]))
	}
	if v.id != 0 && f.ID != v.id {
		note(fmt.Sprintf("its id is %d, not %d", f.ID, v.id))
		d.repair = nil
	}
	return d
}
