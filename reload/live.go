package reload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"nuncio/internal/haproxy"
)

const (
	// sweepFirst and sweepMax bound the growing pause between two attempts to delete servers that have left.
	sweepFirst = time.Second
	sweepMax   = 30 * time.Second
	// sweepBatch bounds the deletions of one attempt, which others wait for.
	sweepBatch = 1000
	// driftEvery is how often the servers of the worker are compared with what they should be. The comparison goes in slices
	// of about driftSlice bytes of configuration, so that no change has to wait for all of it.
	driftEvery = 30 * time.Second
	driftSlice = 100 << 10
	driftPause = 20 * time.Millisecond
)

// live is what is known about the worker that serves, beyond the files that it runs.
type live struct {
	planner planner
	model   *model           // of the files that run; nil when it is not known
	ghosts  map[string]ghost // by target
	avoid   string           // digest of files that the runtime path has tried in vain
	sweep   pause
	drift   pause
	every   time.Duration // between two comparisons
	next    int           // section where the comparison goes on
}

func newLive() live {
	return live{
		ghosts: map[string]ghost{}, every: driftEvery,
		sweep: newPause(sweepFirst, sweepMax), drift: newPause(driftEvery, driftEvery),
	}
}

// forget is for a new worker: it has the servers of its files and no others.
func (l *live) forget(files haproxy.Files) {
	clear(l.ghosts)
	l.sweep.reset()
	l.next = 0
	l.model, _ = newModel(files.Text(haproxy.ConfigFile)) // without one the next change is a reload
	l.drift.in(l.every)
}

// planRuntime looks for a way from what runs to next that needs no new process.
func (m *Manager) planRuntime(next haproxy.Files) (*runtimePlan, string) {
	switch {
	case m.live.model == nil:
		return nil, "the running configuration is not understood"
	case m.live.avoid == next.Digest():
		return nil, "the same change has failed without a reload"
	}
	return m.live.planner.plan(m.live.model, m.running.files, next, m.live.ghosts)
}

// applyRuntime carries a plan out. After an error nothing is certain about the worker any more.
func (m *Manager) applyRuntime(ctx context.Context, p *runtimePlan, want Desired) error {
	ghosts := m.haunt(p)
	m.step("runtime")
	if p.commands()+len(p.files) > 0 {
		ctx, cancel := m.reloadContext(ctx)
		defer cancel()
		if err := m.child.carryOut(ctx, p, m.live.planner.keywords, ghosts); err != nil {
			m.running.confirmed, m.live.avoid = false, want.Files.Digest()
			return fmt.Errorf("change without a reload: %w", err)
		}
	}
	m.step("confirmed")
	m.metrics.commands.Add(float64(p.commands()))
	m.live.ghosts, m.live.model = ghosts, p.next
	if len(ghosts) > 0 && !m.live.sweep.armed() {
		m.live.sweep.arm(0)
	}
	m.running.files, m.running.submitted = want.Files, true
	m.running.generation.Revision, m.running.generation.Digest = want.Revision, want.Files.Digest()
	m.saver.want()
	return nil
}

// haunt are the ghosts that there will be after a plan.
func (m *Manager) haunt(p *runtimePlan) map[string]ghost {
	if len(p.gone)+len(p.back) == 0 {
		return m.live.ghosts
	}
	ghosts := make(map[string]ghost, len(m.live.ghosts)+len(p.gone))
	maps.Copy(ghosts, m.live.ghosts)
	for _, target := range p.back {
		delete(ghosts, target)
	}
	for _, g := range p.gone {
		g.due = time.Now().Add(g.linger)
		ghosts[g.target()] = g
	}
	return ghosts
}

// exorcise deletes servers that have left and that nothing uses any more. One that is still in use stays in
// maintenance: that is no reason for a reload.
func (m *Manager) exorcise(ctx context.Context) {
	m.live.sweep.disarm()
	if m.child == nil || !m.running.confirmed || len(m.live.ghosts) == 0 {
		m.live.sweep.reset()
		return
	}
	var commands []haproxy.Command
	var targets []string
	soonest := time.Duration(-1)
	for target, g := range m.live.ghosts {
		switch wait := time.Until(g.due); {
		case wait > 0 && (soonest < 0 || wait < soonest):
			soonest = wait
		case wait <= 0 && len(targets) < sweepBatch:
			targets = append(targets, target)
			commands = append(commands, haproxy.Command{Line: "del server " + target})
		}
	}
	if len(commands) == 0 {
		m.live.sweep.in(soonest)
		return
	}
	deleted := 0
	if err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
		replies, err := s.Do(ctx, commands)
		for i, r := range replies {
			if !unexpected(commands[i], r) || strings.HasPrefix(r.Text, "No such server") {
				delete(m.live.ghosts, targets[i])
				deleted++
			}
		}
		return err
	}); err != nil {
		m.opts.Logger.Warn("servers that have left cannot be deleted now", "err", err)
	}
	if deleted > 0 {
		m.live.sweep.reset()
		m.opts.Logger.Debug("deleted servers that had left", "deleted", deleted, "left", len(m.live.ghosts))
	}
	if len(m.live.ghosts) > 0 {
		m.live.sweep.arm(0)
	}
	m.publish(func(*Status) {})
}

func (m *Manager) withSession(ctx context.Context, f func(context.Context, *haproxy.Session) error) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	s, err := m.child.session(ctx, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(ctx, s)
}

// patrol compares some servers of the worker with what they should be, and puts right what somebody has changed.
func (m *Manager) patrol(ctx context.Context) {
	m.live.drift.in(m.live.every)
	if m.child == nil || !m.running.confirmed || m.live.model == nil {
		return
	}
	sections := m.patrolSlice()
	if len(sections) == 0 {
		return
	}
	err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error { return m.correct(ctx, s, sections) })
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.metrics.drifts.Inc()
		m.opts.Logger.Warn("haproxy is not as it was left; reloading it", "err", err)
		m.running.confirmed = false
		m.enter(Applying)
		m.repair(ctx)
	}
}

// patrolSlice are the sections that are due, and arranges for the ones after them.
func (m *Manager) patrolSlice() []int {
	var due []int
	size := 0
	all := m.live.model.sections
	for ; m.live.next < len(all) && size < driftSlice; m.live.next++ {
		s := all[m.live.next]
		if s.hasServers() && s.options == "" && haproxy.CheckName(s.name) == nil {
			due = append(due, m.live.next)
			size += len(s.raw)
		}
	}
	if m.live.next < len(all) {
		m.live.drift.in(driftPause)
	} else {
		m.live.next = 0
	}
	return due
}

// correct repairs by commands what commands can repair.
func (m *Manager) correct(ctx context.Context, s *haproxy.Session, sections []int) error {
	drift, err := compare(ctx, s, m.live.model, sections, m.live.planner.keywords, m.live.ghosts)
	if err != nil || len(drift) == 0 {
		return err
	}
	var commands []haproxy.Command
	for _, d := range drift {
		if len(d.repair) == 0 {
			return errors.New(d.String())
		}
		commands = append(commands, d.repair...)
	}
	if err := send(ctx, s, commands); err != nil {
		return err
	}
	if err := confirmServers(ctx, s, m.live.model, sections, m.live.planner.keywords, m.live.ghosts); err != nil {
		return err
	}
	m.metrics.drifts.Inc()
	m.opts.Logger.Warn("somebody had changed servers; they are put right", "servers", len(drift), "first", drift[0].String())
	return nil
}
