package reload

import (
	"context"
	"fmt"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

// showServers asks for every server of a worker.
var showServers = haproxy.Command{Line: "show servers state"}

// noteHealth writes down what the worker's health checks have found, for a worker that is to load files, and returns the servers
// that they have found dead. Without that each server would be up at first: it gets requests until its checks have failed again.
// An error only costs that knowledge.
func (m *Manager) noteHealth(ctx context.Context, files haproxy.Files) (dead []haproxy.ServerState) {
	var content string
	err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
		replies, err := s.Do(ctx, []haproxy.Command{showServers})
		if err != nil {
			return err
		}
		model, err := plan.NewModel(files.Text(haproxy.ConfigFile))
		if err != nil {
			return err
		}
		health := m.worker.planner.NewHealth(model)
		content, err = haproxy.StateFile(replies[0].Text, func(s haproxy.ServerState) bool {
			applies := health.Applies(s)
			if applies && s.Dead() {
				dead = append(dead, s)
			}
			// HAProxy would also take the address of a name from the file, for good where no resolver is configured.
			return applies && s.FQDN == "-" || health.Resolved(s)
		})
		return err
	})
	if err == nil {
		err = process.WriteStateFile(m.opts.RunDir, content)
	}
	if err != nil {
		m.opts.Logger.Warn("what health checks have found is not known after this reload", "err", err)
	}
	return dead
}

// passHealthOn completes a reload that ended with err: dead servers that the new worker takes for living are set down. Those are
// servers whose address is a name, and all of sections that do not read the state file.
func (m *Manager) passHealthOn(ctx context.Context, dead []haproxy.ServerState, err error) {
	m.forgetHealth()
	if err != nil || len(dead) == 0 {
		return
	}
	if err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
		replies, err := s.Do(ctx, []haproxy.Command{showServers})
		if err != nil {
			return err
		}
		now, err := haproxy.ParseServers(replies[0].Text)
		if err != nil {
			return err
		}
		return process.Send(ctx, s, downs(dead, now))
	}); err != nil {
		m.opts.Logger.Warn("some servers that were dead before the reload get requests until their checks fail again", "err", err)
	}
}

// downs returns the commands for the servers among dead that are up now.
func downs(dead, now []haproxy.ServerState) (commands []haproxy.Command) {
	was := make(map[string]bool, len(dead))
	for _, s := range dead {
		was[s.Backend+"/"+s.Name] = true
	}
	for _, s := range now {
		if was[s.Backend+"/"+s.Name] && !s.Dead() && !s.Out() {
			commands = append(commands, haproxy.HealthDown(s.Backend, s.Name))
		}
	}
	return commands
}

// forgetHealth empties the state file: what it says is true for one reload only, and anyone may reload HAProxy.
func (m *Manager) forgetHealth() {
	if err := process.WriteStateFile(m.opts.RunDir, haproxy.EmptyStateFile); err != nil {
		m.opts.Logger.Warn("the state file of servers cannot be written", "err", fmt.Errorf("%s: %w", process.StateFile(m.opts.RunDir), err))
	}
}
