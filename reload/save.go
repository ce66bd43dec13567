package reload

import (
	"context"
	"errors"
	"time"

	"nuncio/internal/haproxy"
)

const (
	// saveQuiet and saveLimit bound how long changes without a reload are gathered before their files are
	// written and checked: until no change has come for saveQuiet, and for no longer than saveLimit. Where the last time
	// took longer than saveQuiet, both grow with it, up to saveMost: the work grows with the fleet, and must not take
	// a processor for itself while changes keep coming.
	saveQuiet = 100 * time.Millisecond
	saveLimit = time.Second
	saveMost  = 10 * time.Second
	saveShare = 4 // the limit is that many times as long as the work
	// saveNiceness is for haproxy -c, which nobody waits for then.
	saveNiceness = 10
	// flushLimit bounds the last write of a nuncio that is told to stop.
	flushLimit = 5 * time.Second
)

// saver brings the files on disk up to what the Runtime API has made of the worker. Its goroutine is the only other user
// of the store, and halt ends it before anything else writes there.
type saver struct {
	timer   pause
	err     error     // why the last attempt failed; nil when none has since the last success
	oldest  time.Time // when the first change came that is not on disk; zero if everything is
	working context.CancelFunc
	took    time.Duration // by the last attempt
	done    chan saved
}

// saved is the outcome of one attempt.
type saved struct {
	files      haproxy.Files
	generation Generation
	took       time.Duration
	err        error
}

func newSaver(first, limit time.Duration) saver {
	return saver{timer: newPause(first, limit), done: make(chan saved, 1)}
}

// want notes that the worker is ahead of the disk.
func (s *saver) want() {
	now := time.Now()
	if s.oldest.IsZero() {
		s.oldest = now
	}
	switch {
	case s.working != nil: // finish looks again
	case s.err == nil:
		quiet, limit := patience(s.took)
		s.timer.in(max(0, min(quiet, limit-now.Sub(s.oldest))))
	case !s.timer.armed(): // halt has ended the growing pause, for an apply that came to nothing
		s.timer.arm(0)
	}
}

// patience is how long to wait for an attempt that takes as long as the last one did.
func patience(took time.Duration) (quiet, limit time.Duration) {
	limit = min(max(saveLimit, saveShare*took), saveMost)
	return min(max(saveQuiet, took), limit), limit
}

func (s *saver) behind() bool { return !s.oldest.IsZero() }

// clean notes that the disk is up to date.
func (s *saver) clean() {
	s.oldest, s.err = time.Time{}, nil
	s.timer.reset()
}

// save starts an attempt in the background: the check takes as long as a start of HAProxy, and the next change
// need not wait for it.
func (m *Manager) save(ctx context.Context) {
	m.saver.timer.disarm()
	if m.saver.working != nil {
		return
	}
	ctx, m.saver.working = context.WithCancel(ctx)
	files, revision := m.running.files, m.running.generation.Revision
	go func() {
		// Servers and maps alone have changed, so there is no new address to try.
		began := time.Now()
		g, err := m.stage(ctx, files, revision, func(context.Context, haproxy.Files) error { return nil }, saveNiceness)
		m.saver.done <- saved{files, g, time.Since(began), err}
	}()
}

// halt ends an attempt that is under way and drops what it has made. Unless the files get to the disk in another way, want
// has to be called afterwards.
func (m *Manager) halt() {
	m.saver.timer.disarm()
	if m.saver.working == nil {
		return
	}
	m.saver.working()
	m.saver.working = nil
	if r := <-m.saver.done; r.err == nil {
		_ = m.store.remove(r.generation.Number) // prune finds it again
	}
}

// finish makes what an attempt has written the current generation.
func (m *Manager) finish(ctx context.Context, r saved) {
	m.saver.working()
	m.saver.working, m.saver.took = nil, r.took
	if ctx.Err() != nil {
		return
	}
	current := r.files.Equal(m.running.files)
	if r.err == nil {
		r.err = m.adopt(r)
	}
	refused := (*CheckError)(nil)
	switch {
	case r.err == nil && current:
		m.saver.clean()
		m.settle()
	case r.err == nil, errors.As(r.err, &refused) && !current:
		m.saver.oldest, m.saver.err = time.Now(), nil // of a change that came in the meantime
		m.saver.want()
	case errors.As(r.err, &refused) && m.check(ctx, m.running.generation.Number) == nil:
		m.takeBack(ctx, r)
	default:
		// Either there was no verdict, or HAProxy now refuses what it has passed before as well: something outside, such
		// as a certificate, has gone. Then the change is not to blame, and traffic is better off with it.
		m.saver.err = r.err
		m.saver.timer.arm(0)
		m.report("haproxy has taken changes as commands, and their files cannot be saved", r.err)
		m.settle()
	}
}

// adopt swaps the link to a generation that has been checked.
func (m *Manager) adopt(r saved) error {
	m.step("save swap")
	if err := m.store.swap(r.generation.Number); err != nil {
		return err
	}
	if err := m.verify(r.generation.Number, r.files); err != nil {
		return err
	}
	m.running.saved, m.running.generation.Number = r.files, r.generation.Number
	m.step("save prune")
	if err := m.store.prune(m.opts.Keep); err != nil {
		m.opts.Logger.Warn("old generations are still there", "err", err)
	}
	m.publish(func(*Status) {})
	return nil
}

// takeBack is for a change that HAProxy has taken as commands and refuses as a file. The worker goes back to
// the files that were checked last, so that it runs what the disk says, and the change is tried once more
// the long way, which tells everyone why it is refused.
func (m *Manager) takeBack(ctx context.Context, r saved) {
	m.opts.Logger.Error("haproxy refuses the files of changes that it has taken as commands; going back", "err", r.err)
	m.live.avoid = r.files.Digest()
	m.running.files = m.running.saved
	m.running.generation.Digest = m.running.saved.Digest()
	m.saver.clean()
	m.running.confirmed = false
	m.repair(ctx)
	m.signalOutdated()
	m.apply(ctx)
}

// repair makes a worker whose state is not known run the files that should run. What fails is tried again by
// the next apply.
func (m *Manager) repair(ctx context.Context) {
	m.halt()
	began := time.Now()
	err := m.restoreSaved(ctx)
	if err == nil {
		err = m.holds.refuse(m.running.files)
	}
	if err == nil {
		m.step("repair")
		err = m.reload(ctx, m.running.files)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		m.report("haproxy is not certain to run what it should", err)
		m.retry.arm(max(reloadRetry, m.holds.left(m.running.files)))
		m.settle()
		return
	}
	m.running.confirmed = true
	m.live.forget(m.running.files)
	m.record(Result{
		Time: began, Duration: time.Since(began), Mode: ModeReload, Outcome: Reloaded, Revision: m.running.generation.Revision,
		Generation: m.running.generation.Number, Digest: m.running.files.Digest(), Reason: "the running worker was not as it should be",
	})
	m.settle()
}

// restoreSaved is restore for a moment when the newest files may not have been checked yet: if they are refused, those
// before them are taken.
func (m *Manager) restoreSaved(ctx context.Context) error {
	m.halt()
	m.saver.err = nil
	err := m.restore(ctx)
	if refused := (*CheckError)(nil); errors.As(err, &refused) && !m.running.files.Equal(m.running.saved) {
		m.live.avoid = m.running.files.Digest()
		m.signalOutdated()
		m.running.files, m.running.generation.Digest = m.running.saved, m.running.saved.Digest()
		err = m.restore(ctx)
	}
	if err == nil {
		m.running.saved = m.running.files
		m.saver.clean()
	}
	return err
}

// flush brings the disk up to date before nuncio ends.
func (m *Manager) flush() {
	if !m.saver.behind() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushLimit)
	defer cancel()
	if err := m.restoreSaved(ctx); err != nil {
		m.opts.Logger.Warn("the last changes are not on disk; the next start takes an older generation", "err", err)
	}
}
