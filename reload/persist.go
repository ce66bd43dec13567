package reload

import (
	"context"
	"errors"
	"time"

	"nuncio/internal/haproxy"
)

const (
	// saveQuiet and saveLimit bound how long changes without a reload are gathered before their files are
	// written and checked: until no change has come for saveQuiet, and for no longer than saveLimit.
	saveQuiet = 100 * time.Millisecond
	saveLimit = time.Second
	// The pause between two generations is at least SaveInterval, and saveShare times as long as the work of the last one,
	// but at most saveMost: the work grows with the fleet, and must not take more than a fifth of a processor while
	// changes keep coming.
	saveMost  = 10 * time.Second
	saveShare = 4
	// saveNiceness is for haproxy -c, which nothing waits for then.
	saveNiceness = 10
	// saveRetryMin and saveRetryMax bound the pause after a save that failed.
	saveRetryMin = 500 * time.Millisecond
	saveRetryMax = 30 * time.Second
	// lastSaveLimit bounds the last save of a nuncio that stops.
	lastSaveLimit = 5 * time.Second
)

// saver brings the files on disk up to what commands have made of the worker. A goroutine of its own writes and checks a new
// generation, which the store keeps apart from all others; only Run's goroutine makes it current.
type saver struct {
	timer  backoff
	err    error     // why the last attempt failed; nil when none has since the last success
	oldest time.Time // when the first change came that is not on disk; zero if everything is
	rested time.Time // the end of the pause after the last generation
	cancel context.CancelFunc
	done   chan saved
}

// saved is the outcome of one attempt.
type saved struct {
	files      haproxy.Files
	generation Generation
	took       time.Duration
	err        error
}

func newSaver() saver {
	return saver{timer: newBackoff(saveRetryMin, saveRetryMax), done: make(chan saved, 1)}
}

// schedule notes that the worker is ahead of the disk.
func (s *saver) schedule() {
	now := time.Now()
	if s.oldest.IsZero() {
		s.oldest = now
	}
	switch {
	case s.cancel != nil: // finishSave looks again
	case s.err == nil:
		s.timer.in(max(0, min(saveQuiet, saveLimit-now.Sub(s.oldest)), s.rested.Sub(now)))
	case !s.timer.armed(): // cancelSave has ended the growing pause, for an apply that failed
		s.timer.arm()
	}
}

// rest begins the pause after a generation that took so long to make.
func (s *saver) rest(interval, took time.Duration) {
	s.rested = time.Now().Add(max(interval, min(saveShare*took, saveMost)))
}

// pending reports whether changes are not on disk yet.
func (s *saver) pending() bool { return !s.oldest.IsZero() }

// saved notes that the disk is up to date.
func (s *saver) saved() {
	s.oldest, s.err = time.Time{}, nil
	s.timer.reset()
}

// save starts an attempt in the background: the check takes as long as a start of HAProxy, and the next change need not wait
// for it.
func (m *Manager) save(ctx context.Context) {
	m.saver.timer.disarm()
	if m.saver.cancel != nil {
		return
	}
	ctx, m.saver.cancel = context.WithCancel(ctx)
	files, g, began := m.running.files, m.running.generation, time.Now()
	// Created is the time of the content: what was applied later is not in it, however long writing takes.
	g.Kind, g.Created = KindEndpoints, began.UTC()
	go func() {
		g, err := m.stage(ctx, files, g, true)
		if err == nil { // here, because no change has to wait for it
			if err = m.store.Compare(g.Number, files); err != nil {
				err = errors.Join(err, m.store.Remove(g.Number))
			}
		}
		m.saver.done <- saved{files, g, time.Since(began), err}
	}()
}

// cancelSave ends an attempt that is under way and removes what it has made. Unless the files get to the disk otherwise,
// schedule has to be called afterwards.
func (m *Manager) cancelSave() {
	m.saver.timer.disarm()
	if m.saver.cancel == nil {
		return
	}
	m.saver.cancel()
	m.saver.cancel = nil
	if r := <-m.saver.done; r.err == nil {
		_ = m.store.Remove(r.generation.Number) // Prune finds it again
	}
}

// finishSave makes what an attempt has written the current generation.
func (m *Manager) finishSave(ctx context.Context, r saved) {
	m.saver.cancel()
	m.saver.cancel = nil
	m.saver.rest(m.opts.SaveInterval, r.took)
	if ctx.Err() != nil {
		return
	}
	newest := r.files.Equal(m.running.files)
	if r.err == nil {
		r.err = m.activateSaved(r)
	}
	switch {
	case r.err == nil && newest:
		m.saver.saved()
	case r.err == nil, isCheckError(r.err) && !newest:
		m.saver.oldest, m.saver.err = time.Now(), nil // of a change that came in the meantime
		m.saver.schedule()
	case isCheckError(r.err) && m.checkGeneration(ctx, m.running.generation.Number, 0) == nil:
		m.revertRejected(ctx, r)
	default:
		// Either there was no verdict, or HAProxy now also rejects what it has passed before: something outside, such as a
		// certificate, is missing. Then the change is not to blame, and traffic is better off with it.
		m.saver.err = r.err
		m.saver.timer.arm()
		m.reportError("haproxy has taken changes as commands, and their files cannot be saved", r.err)
	}
}

func (m *Manager) activateSaved(r saved) error {
	m.opts.Step("save swap")
	if err := m.store.Activate(r.generation.Number); err != nil {
		return err
	}
	m.running.saved, m.running.generation.Number = r.files, r.generation.Number
	m.running.generation.Kind, m.running.generation.Created = r.generation.Kind, r.generation.Created
	m.opts.Step("save prune")
	m.prune()
	m.publish(func(*Status) {})
	return nil
}

// revertRejected is for changes that HAProxy has taken as commands and rejects as a file. The worker is reloaded with the
// files that were checked last, so that it runs what the disk says. The next Apply of the same files does not try commands
// again, and so returns the reason.
func (m *Manager) revertRejected(ctx context.Context, r saved) {
	m.opts.Logger.Error("haproxy rejects the files of changes that it took as commands, reverting to the last checked files", "err", r.err)
	m.fallBackToSaved()
	m.repairWorker(ctx)
}

// fallBackToSaved gives up files that are rejected, for those on disk. A worker has taken them, so it runs something else.
func (m *Manager) fallBackToSaved() {
	m.running.confirmed = false
	m.worker.failedDigest = m.running.files.Digest()
	m.running.files, m.running.generation.Digest = m.running.saved, m.running.saved.Digest()
	m.saver.saved()
	m.signalOutdated()
}

// bringToDisk puts the running files on disk, before HAProxy reads them. They may not have been checked yet: if they are
// rejected, those before them take their place.
func (m *Manager) bringToDisk(ctx context.Context) error {
	m.cancelSave()
	m.saver.err = nil
	err := m.restoreFiles(ctx)
	if isCheckError(err) && !m.running.files.Equal(m.running.saved) {
		m.fallBackToSaved()
		err = m.restoreFiles(ctx)
	}
	if err == nil {
		m.running.saved = m.running.files
		m.saver.saved()
	}
	return err
}

// saveBeforeExit brings the disk up to date before nuncio ends.
func (m *Manager) saveBeforeExit() {
	if !m.saver.pending() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lastSaveLimit)
	defer cancel()
	if err := m.bringToDisk(ctx); err != nil {
		m.opts.Logger.Warn("the last changes are not on disk; the next start takes an older generation", "err", err)
	}
}
