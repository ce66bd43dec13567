package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/haproxy"
	"nuncio/reload"
)

const orderFile = "order.json"

// ErrNothingToResume is Resume's answer when nothing is rolled back or frozen.
var ErrNothingToResume = errors.New("nothing is rolled back or frozen")

// RolledBack says which earlier template set an operator went back to.
type RolledBack struct {
	TemplateSet int64     `json:"template_set"`
	Since       time.Time `json:"since"`
}

// Frozen says which files an operator keeps.
type Frozen struct {
	// Generation had these files when they were frozen; later generations may have them too. It is 0 if they were
	// not saved yet.
	Generation  int64     `json:"generation"`
	Revision    int64     `json:"revision"`
	TemplateSet int64     `json:"template_set"` // 0: unknown
	Digest      string    `json:"digest"`
	Since       time.Time `json:"since"`
}

// Resumed says what Resume has ended: one of the two.
type Resumed struct {
	RolledBack *RolledBack `json:"rolled_back,omitempty"`
	Frozen     *Frozen     `json:"frozen,omitempty"`
}

// savedOrder is the file that makes an order outlive a restart. It holds the frozen files themselves, so that no retention
// of generations matters.
type savedOrder struct {
	Resumed
	Files map[string][]byte `json:"files,omitempty"`
}

type frozenFiles struct {
	Frozen
	files haproxy.Files
	retry retry
}

// order has the loop carry do out and returns its answer. Once the loop has taken it, it is finished whatever happens to
// ctx, which only bounds the waiting.
func order[T any](ctx context.Context, r *Reconciler, do func(context.Context) (T, error)) (T, error) {
	var none, value T
	var err error
	done := make(chan struct{})
	work := func(ctx context.Context) {
		value, err = do(ctx)
		close(done)
	}
	select {
	case r.orders <- work:
	case <-ctx.Done():
		return none, fmt.Errorf("not done: nuncio was busy: %w", context.Cause(ctx))
	case <-r.ended:
		return none, ErrStopped
	}
	select {
	case <-done:
		return value, err
	case <-ctx.Done():
		return none, fmt.Errorf("still being carried out: %w", context.Cause(ctx))
	}
}

// Accept ends a hold of the shrink guard: what the store says is meant. It reports whether there was one.
func (r *Reconciler) Accept(ctx context.Context) (bool, error) {
	return order(ctx, r, func(context.Context) (bool, error) {
		held, keys := r.guard.holding(), r.keys.holding()
		if keys {
			r.takeKeys(r.keys.end(guardAccepted), r.guarded.Watched)
		}
		switch {
		case held:
			r.take(r.guard.end(guardAccepted))
		case keys:
			r.take(guardNone)
		}
		return held || keys, nil
	})
}

// Rollback goes back to an earlier template set and goes on following records with it; 0 means one set back from what runs.
// It returns when HAProxy runs it, or with the reason why not, and then nothing has changed. Edits of the templates are
// not used until Resume.
func (r *Reconciler) Rollback(ctx context.Context, set int64) (TemplateSet, error) {
	return order(ctx, r, func(ctx context.Context) (TemplateSet, error) { return r.rollback(ctx, set) })
}

// Freeze keeps exactly the files of a generation, or with 0 those that run, until Resume: nothing is followed. It returns when
// HAProxy runs them, or with the reason why not, and then nothing has changed.
func (r *Reconciler) Freeze(ctx context.Context, generation int64) (Frozen, error) {
	return order(ctx, r, func(ctx context.Context) (Frozen, error) { return r.freeze(ctx, generation) })
}

// Resume ends a rollback or a freeze: the newest templates follow the newest records again. The error is
// ErrNothingToResume if there was none.
func (r *Reconciler) Resume(ctx context.Context) (Resumed, error) {
	return order(ctx, r, func(context.Context) (Resumed, error) { return r.resume() })
}

func (r *Reconciler) rollback(ctx context.Context, number int64) (TemplateSet, error) {
	if r.snapshot == nil {
		return TemplateSet{}, errors.New("the records have not been read from etcd yet, so nothing can be rendered: " +
			"try again when etcd answers, or use nuncio freeze GENERATION")
	}
	number, err := r.rollbackTarget(number)
	if err != nil {
		return TemplateSet{}, err
	}
	set, info, err := r.sets.load(number, r.opts.Render)
	if err != nil {
		return TemplateSet{}, err
	}
	order := Resumed{RolledBack: &RolledBack{TemplateSet: number, Since: time.Now().UTC()}}
	if err = r.attempt(ctx, set, false); err == nil {
		err = r.save(savedOrder{Resumed: order})
	}
	if err != nil {
		r.restart() // what ran before is brought back by the next pass
		return TemplateSet{}, fmt.Errorf("template set %d does not run, nothing was changed: %w", number, err)
	}
	r.leaveTemplateSet()
	if r.candidate == nil {
		r.candidate = r.current // for Resume
	}
	r.current, r.earlier, r.frozen = set, nil, nil
	r.ordered(eventRollback, order)
	r.opts.Logger.Warn("rolled back by an operator: edits of the templates are not used until nuncio resume", "template_set", number)
	return info, nil
}

// rollbackTarget finds the set that an operator means.
func (r *Reconciler) rollbackTarget(number int64) (int64, error) {
	sets, err := TemplateSets(r.sets.dir)
	if number > 0 {
		if !slices.ContainsFunc(sets, func(s TemplateSet) bool { return s.Number == number }) {
			return 0, errors.Join(fmt.Errorf("there is no template set %d on disk: nuncio history lists those there are", number), err)
		}
		return number, nil
	}
	var now int64
	switch {
	case r.frozen != nil && r.frozen.TemplateSet > 0:
		now = r.frozen.TemplateSet
	case r.current != nil:
		now = r.current.number
	}
	for _, set := range slices.Backward(sets) {
		if set.Number < now {
			return set.Number, nil
		}
	}
	return 0, errors.Join(fmt.Errorf("there is no template set before number %d, which runs", now), err)
}

func (r *Reconciler) freeze(ctx context.Context, generation int64) (Frozen, error) {
	frozen, err := r.freezeTarget(generation)
	if err != nil {
		return Frozen{}, err
	}
	order := savedOrder{Resumed{Frozen: &frozen.Frozen}, make(map[string][]byte)}
	for _, name := range frozen.files.Names() {
		order.Files[name], _ = frozen.files.Get(name)
	}
	result, err := r.applyFrozen(ctx, frozen)
	if err == nil {
		if frozen.Generation == 0 {
			frozen.Generation = result.Generation
		}
		err = r.save(order)
	}
	if err != nil {
		r.restart() // what ran before is brought back by the next pass
		return Frozen{}, fmt.Errorf("the files do not run, nothing was changed: %w", err)
	}
	r.frozen = frozen
	r.ordered(eventFreeze, order.Resumed)
	r.opts.Logger.Warn("frozen by an operator: nothing is followed until nuncio resume", "generation", frozen.Generation, "revision", frozen.Revision)
	return frozen.Frozen, nil
}

func (r *Reconciler) freezeTarget(number int64) (*frozenFiles, error) {
	frozen := &frozenFiles{Frozen: Frozen{Since: time.Now().UTC()}}
	if number == 0 && r.confirmed != nil {
		ran := r.confirmed.result
		frozen.files, frozen.Digest = r.confirmed.files, r.confirmed.files.Digest()
		frozen.Generation, frozen.Revision, frozen.TemplateSet = ran.Generation, ran.Revision, ran.TemplateSet
		return frozen, nil
	}
	if number == 0 { // HAProxy may have been started without etcd
		all, err := reload.Generations(r.opts.StateDir)
		if i := slices.IndexFunc(all, func(g reload.Generation) bool { return g.Current }); i >= 0 {
			number = all[i].Number
		} else {
			return nil, errors.Join(errors.New("HAProxy runs nothing yet that could be frozen"), err)
		}
	}
	found, files, err := reload.ReadGeneration(r.opts.StateDir, number)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no generation %d on disk: nuncio history lists those there are", number)
	}
	frozen.files, frozen.Digest = files, found.Digest
	frozen.Generation, frozen.Revision, frozen.TemplateSet = found.Number, found.Revision, found.TemplateSet
	return frozen, err
}

func (r *Reconciler) applyFrozen(ctx context.Context, f *frozenFiles) (reload.Result, error) {
	began := time.Now()
	result, err := r.opts.Applier.Apply(ctx, reload.Desired{
		Files: f.files, Revision: f.Revision, TemplateSet: f.TemplateSet, NoReload: began.Before(f.retry.noReload),
	})
	r.pace.note(began, result, err)
	if err == nil || ctx.Err() == nil {
		f.retry.ended(began, result, err, false)
	}
	switch {
	case err == nil:
		r.confirmed = &confirmed{f.files, result}
		r.showFrozen(f.files)
	case result.Outcome == reload.Runtime: // a part
		r.confirmed = &confirmed{result.Files, result}
	}
	return result, err
}

// keepFrozen makes HAProxy run the frozen files, if an attempt is due.
func (r *Reconciler) keepFrozen(ctx context.Context) {
	if !isDue(r.frozen.retry.due, time.Now()) {
		return
	}
	_, err := r.applyFrozen(ctx, r.frozen)
	if ctx.Err() == nil && !errors.Is(err, reload.ErrReloadNeeded) {
		r.applyFailed(err)
	}
}

func (r *Reconciler) resume() (Resumed, error) {
	ended := r.order
	if ended == (Resumed{}) {
		return ended, ErrNothingToResume
	}
	if err := os.Remove(filepath.Join(r.opts.StateDir, orderFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Resumed{}, fmt.Errorf("nothing was changed: %w", err)
	}
	r.frozen = nil
	r.ordered(eventResume, Resumed{})
	r.restart()
	r.opts.Logger.Info("resumed by an operator: the newest templates follow the records")
	return ended, nil
}

// ordered publishes the order in force.
func (r *Reconciler) ordered(e event, order Resumed) {
	r.order, r.changed = order, true
	r.certificates.keeper.LookAway()
	r.on(e)
	r.applyFailed(nil)
	r.metrics.ordered(order)
	r.update(func(s *Status) { s.RolledBack, s.Frozen = order.RolledBack, order.Frozen })
}

func (r *Reconciler) save(o savedOrder) error {
	if r.opts.StateDir == "" {
		return errors.New("there is no state directory to keep the order in")
	}
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(r.opts.StateDir, orderFile), append(text, '\n'), 0o600)
}

// restore takes up what was in force when nuncio ran last: an order, and the newest template set that HAProxy ran then, which
// follows the records until the templates of today have proven themselves. What cannot be taken up is dropped and logged.
func (r *Reconciler) restore() {
	if r.opts.StateDir == "" {
		return
	}
	sets, err := TemplateSets(r.opts.StateDir)
	if r.historyFailed(err); len(sets) > 0 {
		r.sets.newest = sets[len(sets)-1]
	}
	saved, err := r.readOrder()
	if err == nil {
		err = r.restoreOrder(saved)
	}
	if err != nil {
		r.opts.Logger.Error("rollback or freeze from before the restart dropped", "err", err)
		_ = os.Remove(filepath.Join(r.opts.StateDir, orderFile)) // if it stays, the next start logs this again
	}
	if r.current == nil && r.sets.newest.Number > 0 {
		set, _, err := r.sets.load(r.sets.newest.Number, r.opts.Render)
		if err == nil {
			r.current = set
		}
		r.historyFailed(err)
	}
}

func (r *Reconciler) restoreOrder(saved savedOrder) error {
	switch {
	case saved.Frozen != nil:
		files, err := haproxy.NewFiles(saved.Files)
		if err == nil && len(files.Config()) == 0 {
			err = errors.New("the frozen files are not in it")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", orderFile, err)
		}
		r.frozen = &frozenFiles{Frozen: *saved.Frozen, files: files, retry: retry{due: time.Now()}}
		r.ordered(eventFreeze, saved.Resumed)
		r.opts.Logger.Warn("still frozen: nothing is followed until nuncio resume", "generation", saved.Frozen.Generation, "since", saved.Frozen.Since)
	case saved.RolledBack != nil:
		set, _, err := r.sets.load(saved.RolledBack.TemplateSet, r.opts.Render)
		if err != nil {
			return err
		}
		r.current = set
		r.ordered(eventRollback, saved.Resumed)
		r.opts.Logger.Warn("still rolled back: edits of the templates are not used until nuncio resume",
			"template_set", saved.RolledBack.TemplateSet, "since", saved.RolledBack.Since)
	}
	return nil
}

func (r *Reconciler) readOrder() (saved savedOrder, err error) {
	text, err := os.ReadFile(filepath.Join(r.opts.StateDir, orderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return saved, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &saved)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", orderFile, err)
	}
	return saved, err
}
