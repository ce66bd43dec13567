package reload

import (
	"context"
	"errors"
	"time"

	"nuncio/reload/internal/process"
)

const (
	// watchDirectories is the time between two looks whether the directories of this nuncio are still there.
	watchDirectories = time.Second
	// socketsRetry is the pause after HAProxy could not be brought to make new sockets.
	socketsRetry = 10 * time.Second
)

// checkDirectories makes the state directory and the one of the sockets again if somebody has deleted them. Without the first,
// a second nuncio would be let in; without the second, HAProxy would go on and take no change any more.
func (m *Manager) checkDirectories(ctx context.Context) {
	deleted, err := m.store.Reclaim()
	if err != nil {
		m.filesLost = true
		m.reportError("the state directory was deleted", err)
		return
	}
	if deleted {
		m.opts.Logger.Error("the state directory was deleted and is made again: earlier generations, template sets and a rollback or freeze are lost",
			"state_dir", m.opts.StateDir)
	}
	if m.child == nil || m.running.generation.Number == 0 || process.HasSockets(m.opts.RunDir) || time.Now().Before(m.socketsDue) {
		return
	}
	m.opts.Logger.Error("haproxy's sockets were deleted, reloading it so that it makes new ones", "dir", m.opts.RunDir)
	m.setState(Applying, nil)
	began := time.Now()
	if err := m.makeSockets(ctx); err != nil {
		if ctx.Err() == nil {
			m.socketsDue = time.Now().Add(socketsRetry)
			m.reportError("haproxy cannot be reached since its sockets were deleted", err)
		}
		return
	}
	m.confirmLoaded()
	g := m.running.generation
	m.record(Result{
		Time: began, Duration: time.Since(began), Mode: ModeReload, Outcome: Reloaded, Revision: g.Revision, Generation: g.Number,
		Digest: g.Digest, TemplateSet: g.TemplateSet, Reason: "haproxy's sockets had been deleted",
	})
}

// makeSockets has HAProxy load what it runs, from a generation that names its socket anew.
func (m *Manager) makeSockets(ctx context.Context) error {
	if err := process.MakeRunDir(m.opts.RunDir); err != nil {
		return err
	}
	m.cancelSave() // it reads what changes now
	m.store.SetOwn(process.OwnConfigAgain(m.opts.RunDir, m.store.Own()))
	if err := m.bringToDisk(ctx); err != nil {
		return err
	}
	ctx, cancel := m.reloadContext(ctx)
	defer cancel()
	err := m.child.ReloadBySignal(ctx)
	if errors.Is(err, process.ErrUnknown) {
		m.running.confirmed, m.running.unknown = false, true
	}
	return err
}
