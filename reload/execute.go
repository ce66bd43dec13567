package reload

import (
	"context"
	"fmt"
	"slices"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

const (
	// confirmTimeout is how long HAProxy may take until it shows what a command has changed: 3.0 and later change an
	// address a moment after they have answered.
	confirmTimeout = 2 * time.Second
	// confirmPause is the first wait between two looks.
	confirmPause = time.Millisecond
)

// execute sends a plan to the worker that serves and returns nil once that worker shows the servers of the plan. After an
// error its state is unknown, and only a reload makes it known again. leaving is what will be leaving afterwards.
func execute(ctx context.Context, h *process.Process, planner plan.Planner, p *plan.Plan, leaving map[string]plan.Leaving) error {
	var first []haproxy.Command
	if p.Additive {
		first = p.Phases[0]
	}
	s, err := h.Session(ctx, first)
	if err != nil {
		return err
	}
	defer s.Close()
	for i, commands := range p.Phases {
		if i == p.FilesAfter {
			if err := changeFiles(ctx, s, p); err != nil {
				return err
			}
		}
		if i == 0 && p.Additive {
			continue
		}
		if err := process.Send(ctx, s, commands); err != nil {
			return err
		}
	}
	if p.FilesAfter == len(p.Phases) {
		if err := changeFiles(ctx, s, p); err != nil {
			return err
		}
	}
	if err := confirmBackends(ctx, s, p); err != nil {
		return err
	}
	return confirmServers(ctx, s, planner, p, leaving)
}

func changeFiles(ctx context.Context, s *haproxy.Session, p *plan.Plan) error {
	if err := exchangeFiles(ctx, s, p.Files); err != nil {
		return err
	}
	return changeCertificates(ctx, s, p.Certificates)
}

// confirmBackends wants the worker to show the backends that came, and not those that went.
func confirmBackends(ctx context.Context, s *haproxy.Session, p *plan.Plan) error {
	commands := p.BackendCommands()
	if len(commands) == 0 {
		return nil
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return err
	}
	return p.CheckBackends(replies)
}

// exchangeFiles exchanges all files with as few round trips as for one.
func exchangeFiles(ctx context.Context, s *haproxy.Session, files []plan.FileChange) error {
	if len(files) == 0 {
		return nil
	}
	var prepare, exchange, show []haproxy.Command
	for _, f := range files {
		prepare = append(prepare, haproxy.Command{Line: "prepare " + f.Kind + " " + f.Name})
		show = append(show, haproxy.Command{Line: "show " + f.Kind + " " + f.Name})
	}
	replies, err := s.Do(ctx, prepare)
	if err != nil {
		return err
	}
	for i, f := range files {
		version, err := haproxy.ParseVersionReply(replies[i].Text)
		if err != nil {
			return fmt.Errorf("file %s: %w", f.Name, err)
		}
		exchange = append(exchange, f.Exchange(version)...)
	}
	if err := process.Send(ctx, s, exchange); err != nil {
		return err
	}
	if replies, err = s.Do(ctx, show); err != nil {
		return err
	}
	for i, f := range files {
		found, err := haproxy.ParsePatterns(replies[i].Text)
		if err != nil {
			return err
		}
		if !slices.Equal(found, f.Entries) {
			return fmt.Errorf("file %s: haproxy shows %d entries that differ from the %d of the file", f.Name, len(found), len(f.Entries))
		}
	}
	return nil
}

// confirmServers waits until HAProxy shows the servers of a plan.
func confirmServers(ctx context.Context, s *haproxy.Session, planner plan.Planner, p *plan.Plan, leaving map[string]plan.Leaving) error {
	deadline := time.Now().Add(confirmTimeout)
	sections := p.Sections
	for pause := confirmPause; ; pause *= 2 {
		drift, differ, err := compareBy(ctx, s, p.Next, sections, func(section int, reply haproxy.Reply) ([]string, error) {
			return planner.Confirm(p, section, reply, leaving)
		})
		if err != nil {
			return err
		}
		if len(drift) == 0 {
			return nil
		}
		sections = differ
		if time.Now().After(deadline) {
			return fmt.Errorf("haproxy does not show the change: %s", drift[0])
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// compare returns the differences between the servers of some sections and those of a worker, and the sections that have any.
func compare(ctx context.Context, s *haproxy.Session, planner plan.Planner, m *plan.Model, sections []int, leaving map[string]plan.Leaving) (drift []string, differ []int, err error) {
	return compareBy(ctx, s, m, sections, func(section int, reply haproxy.Reply) ([]string, error) {
		return planner.Compare(m, section, reply, leaving)
	})
}

func compareBy(ctx context.Context, s *haproxy.Session, m *plan.Model, sections []int, drifts func(section int, reply haproxy.Reply) ([]string, error)) (drift []string, differ []int, err error) {
	commands := make([]haproxy.Command, len(sections))
	for i, n := range sections {
		commands[i] = m.StateCommand(n)
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return nil, nil, err
	}
	for i, n := range sections {
		d, err := drifts(n, replies[i])
		if err != nil {
			return nil, nil, err
		}
		if len(d) > 0 {
			drift, differ = append(drift, d...), append(differ, n)
		}
	}
	return drift, differ, nil
}
