package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/google/renameio/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"nuncio/internal/haproxy"
	"nuncio/reload"
)

// Pin says that an operator holds HAProxy at one generation.
type Pin struct {
	Generation int64     `json:"generation"`
	Revision   int64     `json:"revision"`
	Digest     string    `json:"digest"` // of its files, which later generations may hold too
	Since      time.Time `json:"since"`
}

// Gate stands between a Follower and the applier. While a generation is pinned it keeps what is submitted to itself, and
// hands over the newest of it when the pin ends. A pin outlives a restart: it is a file in the state directory.
type Gate struct {
	applier  Applier
	stateDir string
	log      *slog.Logger
	pinned   prometheus.Gauge

	change sync.Mutex // held by those who set or end a pin, and by Submit

	mu   sync.Mutex
	pin  *Pin
	held *reload.Desired
}

var _ Applier = (*Gate)(nil)

const pinFile = "pin.json"

// ErrNotPinned is Resume's answer when nothing is pinned.
var ErrNotPinned = errors.New("nothing is pinned")

// NewGate makes a Gate; logger and registerer may be nil. It touches nothing.
func NewGate(applier Applier, stateDir string, logger *slog.Logger, registerer prometheus.Registerer) *Gate {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Gate{applier: applier, stateDir: stateDir, log: logger, pinned: promauto.With(registerer).NewGauge(prometheus.GaugeOpts{
		Name: "nuncio_pinned_generation", Help: "Number of the generation that an operator has pinned; 0 while none is.",
	})}
}

// Restore submits what was pinned when nuncio ran last, if anything was. It comes before the first Submit. A pin whose
// generation is gone, or which cannot be read, is dropped with an error.
func (g *Gate) Restore(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(g.stateDir, pinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var pin Pin
	if err == nil {
		err = json.Unmarshal(text, &pin)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("pinned generation: %w", err), g.forget())
	}
	files, err := g.find(pin)
	if err != nil {
		return errors.Join(fmt.Errorf("generation %d was pinned and cannot be any more: %w", pin.Generation, err), g.forget())
	}
	g.set(&pin)
	g.log.Warn("a generation is pinned: changes are not applied until it is resumed", "generation", pin.Generation, "since", pin.Since)
	return g.applier.Submit(ctx, reload.Desired{Files: files, Revision: pin.Revision})
}

// find reads the pinned files, from their own generation or from a later one that holds the same.
func (g *Gate) find(pin Pin) (haproxy.Files, error) {
	all, err := reload.Generations(g.stateDir)
	if err != nil {
		return haproxy.Files{}, err
	}
	for _, have := range slices.Backward(all) {
		if have.Digest != pin.Digest {
			continue
		}
		if _, files, err := reload.ReadGeneration(g.stateDir, have.Number); err == nil {
			return files, nil
		}
	}
	return haproxy.Files{}, errors.New("its files are not in the state directory")
}

// Submit hands over what is wanted, or keeps it while a generation is pinned.
func (g *Gate) Submit(ctx context.Context, desired reload.Desired) error {
	g.change.Lock()
	defer g.change.Unlock()
	g.mu.Lock()
	g.held = &reload.Desired{Files: desired.Files, Revision: desired.Revision}
	pinned := g.pin != nil
	g.mu.Unlock()
	if pinned {
		return ctx.Err()
	}
	return g.applier.Submit(ctx, desired)
}

// Status is the applier's.
func (g *Gate) Status() reload.Status { return g.applier.Status() }

// Changed is the applier's.
func (g *Gate) Changed() <-chan struct{} { return g.applier.Changed() }

// Pinned is nil while nothing is pinned.
func (g *Gate) Pinned() *Pin {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pin
}

// Wanted is what was submitted last, whether or not it was handed over.
func (g *Gate) Wanted() (reload.Desired, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.held == nil {
		return reload.Desired{}, false
	}
	return *g.held, true
}

// Pin makes HAProxy run an earlier generation and keep it; 0 means one step back from what runs, or one further back than
// what is pinned. It returns when HAProxy has confirmed it. When HAProxy would not run it, nothing is pinned and what was wanted before is
// wanted again.
func (g *Gate) Pin(ctx context.Context, number int64) (Pin, error) {
	g.change.Lock()
	defer g.change.Unlock()
	target, files, err := g.target(number)
	if err != nil {
		return Pin{}, err
	}
	pin := Pin{Generation: target.Number, Revision: target.Revision, Digest: target.Digest, Since: time.Now().UTC()}
	before := g.Pinned()
	if err := g.remember(pin); err != nil {
		return Pin{}, fmt.Errorf("pin generation %d: %w", pin.Generation, err)
	}
	g.set(&pin)
	began := time.Now()
	err = g.applier.Submit(ctx, reload.Desired{Files: files, Revision: pin.Revision, Now: true})
	if err == nil {
		err = g.confirmed(ctx, pin.Digest, began)
	}
	if err != nil {
		return Pin{}, errors.Join(fmt.Errorf("generation %d does not run: %w", pin.Generation, err), g.restoreAfter(before))
	}
	g.log.Warn("generation pinned by an operator", "generation", pin.Generation, "revision", pin.Revision)
	return pin, nil
}

// restoreAfter goes back to how things were before a pin that did not work.
func (g *Gate) restoreAfter(before *Pin) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	g.set(before)
	if before != nil {
		files, err := g.find(*before)
		if err == nil {
			err = g.applier.Submit(ctx, reload.Desired{Files: files, Revision: before.Revision})
		}
		return errors.Join(err, g.remember(*before))
	}
	return errors.Join(g.forget(), g.release(ctx, false))
}

// target finds the generation that number means.
func (g *Gate) target(number int64) (reload.Generation, haproxy.Files, error) {
	if number > 0 {
		found, files, err := reload.ReadGeneration(g.stateDir, number)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("there is no generation %d on disk: nuncio history lists those there are", number)
		}
		return found, files, err
	}
	return g.back()
}

// back finds the generation one step back: the newest that differs from what runs and from what is wanted.
func (g *Gate) back() (reload.Generation, haproxy.Files, error) {
	all, err := reload.Generations(g.stateDir)
	if err != nil {
		return reload.Generation{}, haproxy.Files{}, err
	}
	now := g.applier.Status()
	// The number is still that of the generation before while a change by commands is not saved.
	newest, none := now.AppliedGeneration, errors.New("there is no earlier generation to go back to")
	passed := []string{now.AppliedDigest}
	if pin := g.Pinned(); pin != nil {
		// What runs has a new number now, above that of what was left.
		newest = pin.Generation - 1
		none = fmt.Errorf("there is no other generation before generation %d, which is pinned", pin.Generation)
		passed = append(passed, pin.Digest)
	}
	if wanted, known := g.Wanted(); known {
		passed = append(passed, wanted.Files.Digest())
	}
	for _, have := range slices.Backward(all) {
		if have.Number <= newest && !slices.Contains(passed, have.Digest) {
			return reload.ReadGeneration(g.stateDir, have.Number)
		}
	}
	return reload.Generation{}, haproxy.Files{}, none
}

// confirmed waits for the end of the attempt to run the files with this digest.
func (g *Gate) confirmed(ctx context.Context, digest string, began time.Time) error {
	for {
		changed := g.applier.Changed()
		for _, a := range slices.Backward(g.applier.Status().Applies) {
			if a.Digest != digest || a.Time.Before(began) {
				continue
			}
			if a.Outcome == reload.Rejected || a.Outcome == reload.Failed {
				return errors.New(a.Reason)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

// Resume ends the pin and hands over what is wanted by now.
func (g *Gate) Resume(ctx context.Context) (Pin, error) {
	g.change.Lock()
	defer g.change.Unlock()
	pin := g.Pinned()
	if pin == nil {
		return Pin{}, ErrNotPinned
	}
	if err := g.forget(); err != nil {
		return Pin{}, fmt.Errorf("end the pin of generation %d: %w", pin.Generation, err)
	}
	g.set(nil)
	g.log.Info("pin ended by an operator", "generation", pin.Generation)
	return *pin, g.release(ctx, true)
}

func (g *Gate) release(ctx context.Context, ordered bool) error {
	desired, known := g.Wanted()
	if !known {
		return nil // etcd has not said anything yet
	}
	desired.Now = ordered
	return g.applier.Submit(ctx, desired)
}

func (g *Gate) set(pin *Pin) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pin = pin
	g.pinned.Set(0)
	if pin != nil {
		g.pinned.Set(float64(pin.Generation))
	}
}

func (g *Gate) remember(pin Pin) error {
	text, err := json.MarshalIndent(pin, "", "  ")
	if err != nil {
		return err
	}
	return renameio.WriteFile(filepath.Join(g.stateDir, pinFile), append(text, '\n'), 0o600)
}

func (g *Gate) forget() error {
	err := os.Remove(filepath.Join(g.stateDir, pinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
