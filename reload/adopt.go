package reload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"nuncio/internal/haproxy"
	"nuncio/reload/internal/plan"
	"nuncio/reload/internal/process"
)

// adopt takes over the haproxy that an earlier nuncio left running on this state directory. If it cannot be
// adopted, nothing of it is left afterwards, and HAProxy is started as on any other day.
func (m *Manager) adopt(ctx context.Context) error {
	r, err := process.ReadRecord(m.opts.RunDir)
	if err == nil {
		var unsure string
		if unsure, err = m.takeOver(ctx, r); err == nil {
			m.opts.Logger.Info("adopted the haproxy that runs", "pid", m.child.Pid(), "worker", m.child.Worker(),
				"generation", m.running.generation.Number, "revision", m.running.generation.Revision, "reload_because", unsure)
			return nil
		}
	}
	m.child, m.running, m.ahead = nil, running{}, false
	if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, os.ErrProcessDone) { // as after any restart of the machine
		m.opts.Logger.Warn("no haproxy can be adopted, starting one", "err", err)
	}
	if err := process.StopLeftover(ctx, m.opts.RunDir, m.opts.Logger); err != nil {
		return err
	}
	// A later nuncio must not take a different process for this one.
	return process.Forget(m.opts.RunDir)
}

// takeOver proves that the haproxy of a record runs, and finds out what its worker runs. unsure says why the worker may differ
// from that; a reload then makes it certain, which is the first thing that happens to it.
func (m *Manager) takeOver(ctx context.Context, r process.Record) (unsure string, err error) {
	h, info, err := process.Adopt(ctx, m.launchOptions(), r)
	if err != nil {
		return "", err
	}
	number := r.Generation
	if h.Worker() != r.Worker || number == 0 {
		unsure = "its worker is not the one that was confirmed last"
		number, err = m.store.Current() // the worker has most likely loaded this one
	}
	var g Generation
	var files haproxy.Files
	if err == nil {
		g, files, err = ReadGeneration(m.opts.StateDir, number)
	}
	if err != nil {
		h.Release()
		return "", err
	}
	if version := m.worker.planner.Version.String(); info.Fields["Version"] != version {
		unsure = fmt.Sprintf("its version is %s and that of %s is %s", info.Fields["Version"], m.opts.HAProxy, version)
	}
	if r.Unsure {
		unsure, m.ahead = "changes that it took as commands are not on disk", true
	}
	// The link may lead to a newer generation, which no worker has loaded, and an earlier nuncio may have had a different nuncio.cfg.
	if err := m.store.Switch(number, files); err != nil {
		unsure = err.Error()
	}
	m.child = h
	m.running = running{files: files, saved: files, generation: g, confirmed: true}
	env := h.Environment(m.opts.env)
	m.reportEnvironment(env)
	m.opts.env = env // the check of files must see what the master sees when it loads them
	m.worker.planner.Keywords = h.Keywords(ctx, m.worker.planner.Keywords)
	m.worker.reset(files)
	m.forgetHealth()
	if unsure == "" {
		if err := m.compareAll(ctx); err != nil {
			unsure = err.Error()
		}
	}
	m.running.confirmed = unsure == ""
	m.publish(func(s *Status) {
		s.AppliedTime = g.Created
		s.OldWorkers = 1 // until the first count
	})
	return unsure, nil
}

// compareAll compares all servers of the worker with the files, and finds the leaving ones.
func (m *Manager) compareAll(ctx context.Context) error {
	w := &m.worker
	if w.model == nil {
		return nil // the next change is a reload anyway
	}
	for next := 0; ; {
		var sections []int
		if sections, next = w.model.Batch(next, driftBatch); len(sections) > 0 {
			if err := m.withSession(ctx, func(ctx context.Context, s *haproxy.Session) error {
				if err := w.findLeaving(ctx, s, sections); err != nil {
					return err
				}
				drift, _, err := compare(ctx, s, w.planner, w.model, sections, w.leaving)
				if err == nil && len(drift) > 0 {
					err = fmt.Errorf("%d servers differ; the first: %s", len(drift), drift[0])
				}
				return err
			}); err != nil {
				return err
			}
		}
		if next == 0 {
			return m.withSession(ctx, w.findLeavingBackends)
		}
	}
}

// findLeavingBackends notes backends that are in no file and not published, with their servers: they would keep their names.
func (w *worker) findLeavingBackends(ctx context.Context, s *haproxy.Session) error {
	if !w.planner.Version.AtLeast(3, 4) {
		return nil
	}
	replies, err := s.Do(ctx, []haproxy.Command{{Line: "show backend"}})
	if err != nil {
		return err
	}
	known := w.model.Names()
	for name := range strings.FieldsSeq(replies[0].Text) {
		if haproxy.CheckName(name) != nil || known[name] { // the first line begins with "# name"
			continue
		}
		shown, err := s.Do(ctx, []haproxy.Command{haproxy.ShowBackend(name), {Line: "show servers state " + name}})
		if err != nil {
			return err
		}
		if b, err := haproxy.ParseBackend(shown[0].Text, name); err != nil || b.Mode == "" || b.Published {
			continue
		}
		left := []plan.Leaving{{Backend: name}}
		servers, _ := haproxy.ParseServers(shown[1].Text) // a backend without any
		for _, v := range servers {
			left = append(left, plan.Leaving{Backend: name, Name: v.Name})
		}
		w.leave(left)
	}
	return nil
}

// findLeaving notes servers in maintenance that are in no file.
func (w *worker) findLeaving(ctx context.Context, s *haproxy.Session, sections []int) error {
	commands := make([]haproxy.Command, len(sections))
	for i, n := range sections {
		commands[i] = w.model.StateCommand(n)
	}
	replies, err := s.Do(ctx, commands)
	if err != nil {
		return err
	}
	for i, n := range sections {
		found, err := w.planner.Surplus(w.model, n, replies[i])
		if err != nil {
			return err
		}
		w.leave(found)
	}
	return nil
}

// remember keeps on disk what the next nuncio has to know about the haproxy that runs. It must not say more than is certain,
// so it comes after everything else that an event has brought; markUnsure comes before.
func (m *Manager) remember() {
	if m.child != nil {
		r := m.child.Record(m.running.generation.Number)
		r.Unsure = m.saver.pending() || !m.running.confirmed
		m.keepRecord(r)
	}
}

// markUnsure notes on disk that the worker may differ from the files there: commands are about to be sent.
func (m *Manager) markUnsure() {
	r := m.child.Record(m.running.generation.Number)
	r.Unsure = true
	m.keepRecord(r)
}

func (m *Manager) keepRecord(r process.Record) {
	if r.Equal(m.recorded) {
		return
	}
	err := r.Write(m.opts.RunDir)
	if err == nil {
		m.recorded = r
	} else if r.Unsure {
		err = errors.Join(err, process.Forget(m.opts.RunDir)) // no record is better than a wrong one
		m.recorded = process.Record{}
	}
	m.reportRecord(err)
}

// verifyRecord sees to it that a record which someone has removed is written again.
func (m *Manager) verifyRecord() {
	if m.child != nil && !process.Recorded(m.opts.RunDir) {
		m.recorded = process.Record{}
	}
}

// reportRecord logs once that the record cannot be kept, which costs only the next nuncio something.
func (m *Manager) reportRecord(err error) {
	if err != nil && !m.recordFails {
		m.opts.Logger.Warn("if nuncio is killed now, the next one has to restart haproxy", "err", err)
	}
	m.recordFails = err != nil
}

// handOver leaves the running haproxy to the next nuncio.
func (m *Manager) handOver() {
	m.handedOver.Store(true)
	m.saveBeforeExit()
	m.remember()
	if m.child != nil {
		m.opts.Logger.Info("leaving haproxy to the next nuncio", "pid", m.child.Pid(), "worker", m.child.Worker())
		m.child.Release()
	}
}

// HandOver makes Run return without a drain: HAProxy serves on, and the next Manager on the state directory adopts it. An
// Apply that is under way comes to its end before.
func (m *Manager) HandOver(ctx context.Context) error {
	select {
	case m.leaving <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.done:
		return ErrStopped
	}
	<-m.done
	return nil
}

// HandedOver reports whether Run has ended, or is about to, because of HandOver.
func (m *Manager) HandedOver() bool { return m.handedOver.Load() }

// perStart are variables that a terminal or systemd gives a different value at each start.
var perStart = []string{"INVOCATION_ID", "JOURNAL_STREAM", "NOTIFY_SOCKET", "OLDPWD", "PWD", "SHLVL", "SYSTEMD_EXEC_PID", "WATCHDOG_PID", "_"}

// reportEnvironment names the variables that HAProxy has with a different value than nuncio. Only a start changes them.
func (m *Manager) reportEnvironment(theirs []string) {
	var differ []string
	for _, both := range [][2][]string{{theirs, m.opts.env}, {m.opts.env, theirs}} {
		for _, kv := range both[0] {
			name, _, _ := strings.Cut(kv, "=")
			if !slices.Contains(both[1], kv) && !slices.Contains(perStart, name) && !slices.Contains(differ, name) {
				differ = append(differ, name)
			}
		}
	}
	if len(differ) > 0 {
		slices.Sort(differ)
		m.opts.Logger.Warn("haproxy keeps the environment that it was started with", "differs", strings.Join(differ, ","))
	}
}
