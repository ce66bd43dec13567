package reload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"nuncio/internal/haproxy"
)

// reloadRetry is the least pause after a reload that went wrong. Where HAProxy itself could not load the files, that
// costs an outage, and holds keeps it from becoming a loop.
const reloadRetry = 2 * time.Second

// settleTime is how long a start or a reload that is under way may still take when nuncio is told to stop: a master in
// the middle of it does not hear signals.
const settleTime = 3 * time.Second

// plan is the way from what runs to what shall run.
type plan struct {
	mode    Mode
	reason  string
	runtime *runtimePlan // with ModeRuntime
}

// choose is the one place that decides how a set of files gets into HAProxy. runtime looks for a way without a reload.
func choose(now running, alive bool, next haproxy.Files, runtime func(haproxy.Files) (*runtimePlan, string)) plan {
	switch {
	case !alive:
		return plan{mode: ModeStart, reason: "no haproxy runs"}
	case !now.confirmed:
		return plan{mode: ModeReload, reason: "it is not certain what haproxy runs"}
	case now.files.Equal(next):
		return plan{mode: ModeNone, reason: "haproxy runs these files"}
	}
	p, reason := runtime(next)
	if p == nil {
		return plan{mode: ModeReload, reason: reason}
	}
	return plan{mode: ModeRuntime, reason: "only servers, maps and lists differ", runtime: p}
}

// apply makes an attempt with what was submitted last, and sees to the next one if it fails.
func (m *Manager) apply(ctx context.Context) {
	if m.desired == nil {
		return
	}
	if m.direct { // the caller of Apply decides about what failed
		if m.child != nil && !m.running.confirmed {
			m.repair(ctx)
		}
		return
	}
	_, err := m.attempt(ctx, *m.desired)
	switch {
	case err == nil:
		m.retry.reset()
		m.said.worked(m.desired.Files.Digest())
	case ctx.Err() == nil:
		m.failed(err)
	}
	m.settle()
}

// applyOnce makes one attempt for a caller who decides about the next one.
func (m *Manager) applyOnce(ctx context.Context, d Desired) (Result, error) {
	before := m.desired
	m.desired, m.direct, m.holds.all = &d, true, nil
	r, err := m.attempt(ctx, d)
	switch {
	case errors.Is(err, ErrStopped):
		return Result{}, err
	case errors.Is(err, ErrReloadNeeded):
		m.desired = before
		return Result{}, err
	case err != nil:
		m.publish(func(s *Status) { s.LastError, s.LastErrorTime = err.Error(), time.Now() })
		m.startAgain()
		if m.child != nil && !m.running.confirmed && !m.retry.armed() {
			m.retry.arm(reloadRetry) // for a repair
		}
	default:
		m.retry.reset()
	}
	m.settle()
	return r, err
}

// attempt tries to get files into HAProxy and records how it went.
func (m *Manager) attempt(ctx context.Context, want Desired) (Result, error) {
	began := time.Now()
	way := choose(m.running, m.child != nil, want.Files, m.planRuntime)
	if way.mode == ModeReload && want.NoReload {
		return Result{}, fmt.Errorf("%w: %s", ErrReloadNeeded, way.reason)
	}
	m.retry.disarm()
	// A change by commands takes a millisecond: traffic comes first, and then those who want to know of it.
	if way.mode != ModeRuntime {
		m.announce()
	}
	if way.mode == ModeReload || way.mode == ModeStart {
		m.enter(Applying)
	}
	generation, err := m.carryOut(ctx, &way, want)
	if err != nil && ctx.Err() != nil {
		return Result{}, ErrStopped // nothing has been learnt about these files
	}
	if errors.Is(err, ErrReloadNeeded) {
		return Result{}, err
	}
	a := Result{
		Time: began, Duration: time.Since(began), Mode: way.mode, Revision: want.Revision, Generation: generation,
		Digest: want.Files.Digest(), Reason: way.reason, TemplateSet: want.TemplateSet,
	}
	if err != nil {
		a.Outcome, a.Reason = Failed, err.Error()
		if refused := (*CheckError)(nil); errors.As(err, &refused) {
			a.Outcome = Rejected
		}
		failed := (*ReloadError)(nil)
		a.Taken, a.ReloadFailed = takenIn(err), errors.As(err, &failed)
	} else {
		a.Outcome = map[Mode]Outcome{ModeNone: Unchanged, ModeStart: Started, ModeReload: Reloaded, ModeRuntime: Runtime}[way.mode]
		if way.runtime != nil {
			a.Servers, a.Commands = way.runtime.servers, way.runtime.commands()
		}
	}
	m.record(a)
	return a, err
}

// announce says what is wanted.
func (m *Manager) announce() {
	if s := m.board.get(); s.DesiredRevision != m.desired.Revision || s.DesiredDigest != m.desired.Files.Digest() {
		m.publish(func(s *Status) { s.DesiredRevision, s.DesiredDigest = m.desired.Revision, m.desired.Files.Digest() })
	}
}

// carryOut is the apply itself. On an error the generation that was current before is current again. A way without a
// reload that fails becomes one with a reload.
func (m *Manager) carryOut(ctx context.Context, way *plan, want Desired) (int64, error) {
	switch way.mode {
	case ModeNone:
		m.running.submitted, m.running.generation.Revision = true, want.Revision
		return m.running.generation.Number, nil
	case ModeRuntime:
		err := m.applyRuntime(ctx, way.runtime, want)
		if err == nil || ctx.Err() != nil {
			return 0, err // its generation gets a number when it is written
		}
		if want.NoReload {
			m.repair(ctx) // some of the commands may have been carried out
			return 0, fmt.Errorf("%w: %w", ErrReloadNeeded, err)
		}
		m.opts.Logger.Warn("haproxy has not taken a change as commands; reloading it", "revision", want.Revision, "err", err)
		*way = plan{mode: ModeReload, reason: err.Error()}
		m.announce()
		m.enter(Applying)
	}
	number, err := m.load(ctx, way.mode, want)
	if err == nil {
		m.saver.clean()
		m.live.forget(want.Files)
		return number, nil
	}
	switch {
	case ctx.Err() != nil || m.child == nil:
	case !m.running.confirmed && !isReloadError(err):
		m.repair(ctx) // half of the commands may have been carried out
	case m.saver.behind():
		m.saver.want()
	}
	return 0, err
}

// load gets files into HAProxy by making it read them.
func (m *Manager) load(ctx context.Context, mode Mode, want Desired) (int64, error) {
	if mode == ModeReload {
		if err := m.holds.refuse(want.Files); err != nil {
			return 0, err
		}
	}
	m.halt()
	next, err := m.prepare(ctx, want.Files, want.Revision)
	if err != nil {
		return 0, err
	}
	previous, err := currentNumber(m.opts.StateDir)
	if err == nil {
		err = m.activate(ctx, mode, next, want.Files)
	}
	if err != nil {
		back := m.store.swap(previous)
		if back == nil {
			back = m.store.remove(next.Number)
		}
		return 0, errors.Join(err, back)
	}
	m.running = running{files: want.Files, saved: want.Files, generation: next, confirmed: true, submitted: true}
	m.step("prune")
	if err := m.store.prune(m.opts.Keep); err != nil {
		m.opts.Logger.Warn("old generations are still there", "err", err)
	}
	return next.Number, nil
}

// prepare writes files as a new generation and has it checked. On an error nothing of it is left.
func (m *Manager) prepare(ctx context.Context, files haproxy.Files, revision int64) (Generation, error) {
	return m.stage(ctx, files, revision, m.probe, 0)
}

// stage is prepare with another way to try addresses. It touches nothing of m that changes.
func (m *Manager) stage(ctx context.Context, files haproxy.Files, revision int64, probe func(context.Context, haproxy.Files) error, niceness int) (Generation, error) {
	if err := refuse(files, getenv(m.opts.Env)); err != nil {
		return Generation{}, err
	}
	m.step("write")
	number, err := m.store.write(files)
	if err != nil {
		return Generation{}, err
	}
	next := Generation{Number: number, Revision: revision, Digest: files.Digest(), Created: time.Now().UTC()}
	m.step("check")
	err = m.checkAt(ctx, number, niceness)
	if err == nil {
		m.step("bind")
		err = probe(ctx, files)
	}
	if err == nil {
		m.step("seal")
		err = m.store.seal(next)
	}
	if err != nil {
		return Generation{}, errors.Join(err, m.store.remove(number))
	}
	return next, nil
}

func (m *Manager) check(ctx context.Context, number int64) error { return m.checkAt(ctx, number, 0) }

func (m *Manager) checkAt(ctx context.Context, number int64, niceness int) error {
	ctx, cancel := context.WithTimeout(ctx, m.opts.CheckTimeout)
	defer cancel()
	c := checker{program: m.opts.HAProxy, env: m.opts.Env, procs: m.opts.Procs, niceness: niceness}
	return c.check(ctx, generationPath(m.opts.StateDir, number))
}

// probe has nothing to protect while no haproxy serves: then the start itself tells.
func (m *Manager) probe(ctx context.Context, files haproxy.Files) error {
	if m.child == nil {
		return nil
	}
	env := getenv(m.opts.Env)
	if err := probeBinds(ctx, binds(m.running.files.Config(), env), binds(files.Config(), env)); err != nil {
		return fmt.Errorf("%w; HAProxy was not reloaded, because it would stop serving for two seconds and then fail", err)
	}
	return nil
}

// diagnose adds to the error of a start which addresses were taken, if that was why.
func (m *Manager) diagnose(ctx context.Context, failed error, files haproxy.Files) error {
	if failed == nil || m.child != nil {
		return failed
	}
	if taken := takenBinds(ctx, binds(files.Config(), getenv(m.opts.Env))); taken != nil {
		return fmt.Errorf("%w: %w", taken, failed)
	}
	return failed
}

func takenIn(err error) []Taken {
	if found := (*BindError)(nil); errors.As(err, &found) {
		var out []Taken
		for _, a := range found.Addresses {
			out = append(out, Taken{Addr: a.Addr, Reason: a.Reason, Line: a.Line, Still: a.StillInUse})
		}
		return out
	}
	return nil
}

// activate makes a checked generation current and HAProxy load it.
func (m *Manager) activate(ctx context.Context, mode Mode, next Generation, files haproxy.Files) error {
	m.step("swap")
	if err := m.store.swap(next.Number); err != nil {
		return err
	}
	if err := m.verify(next.Number, files); err != nil {
		return err
	}
	m.step("load")
	if mode == ModeStart {
		return m.diagnose(ctx, m.start(ctx), files)
	}
	err := m.reload(ctx, files)
	if errors.Is(err, errUnknown) {
		m.running.confirmed = false
	}
	return err
}

// reload makes HAProxy load the current generation, which has these files.
func (m *Manager) reload(ctx context.Context, files haproxy.Files) error {
	ctx, cancel := m.reloadContext(ctx)
	defer cancel()
	err := m.child.reload(ctx)
	if err == nil {
		m.holds.worked(files)
		return nil
	}
	kept := errors.Is(err, errKept)
	err = &ReloadError{err}
	if kept {
		m.holds.failed(files, err)
	}
	return err
}

// verify compares what HAProxy is about to read with what was checked, byte for byte.
func (m *Manager) verify(number int64, files haproxy.Files) error {
	current, err := currentNumber(m.opts.StateDir)
	if err != nil {
		return err
	}
	if current != number {
		return fmt.Errorf("the current generation is %d instead of %d: something else writes to %s", current, number, m.opts.StateDir)
	}
	_, found, err := ReadGeneration(m.opts.StateDir, number)
	if err != nil {
		return err
	}
	own, err := os.ReadFile(filepath.Join(generationPath(m.opts.StateDir, number), ownConfigFile))
	if err != nil {
		return err
	}
	if !found.Equal(files) || !bytes.Equal(own, ownConfig(m.opts.RunDir)) {
		return fmt.Errorf("generation %d is not what was written: something else writes to %s", number, m.opts.StateDir)
	}
	return nil
}

// reloadContext ends after ReloadTimeout, or settleTime after ctx, or with ctx if somebody is in a hurry.
func (m *Manager) reloadContext(ctx context.Context) (context.Context, context.CancelFunc) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opts.ReloadTimeout)
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(m.settleTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-m.hurried:
		case <-own.Done():
		}
		cancel()
	})
	return own, func() { stop(); cancel() }
}

// failed decides when to try again, and says what went wrong once per distinct reason.
func (m *Manager) failed(err error) {
	floor, reason := m.holds.left(m.desired.Files), err.Error()
	if isReloadError(err) {
		floor = max(floor, reloadRetry)
	}
	m.retry.arm(floor)
	if held := (*heldError)(nil); errors.As(err, &held) {
		reason = held.reason // which is no news
	}
	level := slog.LevelError
	if m.said.again(reason, m.desired.Files.Digest()) {
		level = slog.LevelDebug
	}
	m.opts.Logger.Log(context.Background(), level, "apply failed; what ran before goes on", "revision", m.desired.Revision,
		"digest", m.desired.Files.Digest(), "retry_in", time.Until(m.retry.until).Round(time.Millisecond), "err", err)
	m.publish(func(s *Status) { s.LastError, s.LastErrorTime = err.Error(), time.Now() })
	m.startAgain()
}

// startAgain sees to it that the last good generation is started, if there is one and no haproxy runs.
func (m *Manager) startAgain() {
	if m.child == nil && !m.restart.armed() {
		m.restart.in(0)
	}
}

func isReloadError(err error) bool {
	failed := (*ReloadError)(nil)
	return errors.As(err, &failed)
}

// sayAgain is how long an error must not have been met to be news again.
const sayAgain = 10 * time.Minute

// complaint is the last apply error that was logged. That other files run in between does not end it: while new templates
// are broken they and the last good ones are submitted in turn, at every change of a service.
type complaint struct {
	text, digest string // of the files that met it last
	met          time.Time
}

// again notes an error and tells whether it is known.
func (c *complaint) again(text, digest string) bool {
	known := c.text == text && time.Since(c.met) < sayAgain
	*c = complaint{text, digest, time.Now()}
	return known
}

// worked ends a complaint about files that run by now.
func (c *complaint) worked(digest string) {
	if c.digest == digest {
		*c = complaint{}
	}
}
