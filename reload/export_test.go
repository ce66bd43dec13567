package reload

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"nuncio/internal/haproxy"
)

// SetStep makes a Manager call step with the name of each step that it takes.
func (m *Manager) SetStep(step func(name string)) { m.step = step }

// SetReconcile changes how often a Manager compares files and processes with what it knows.
func (m *Manager) SetReconcile(every time.Duration) { m.reconcileEvery = every }

// SetSettle changes how long a start or a reload may go on after Run's context has ended.
func (m *Manager) SetSettle(limit time.Duration) { m.settleTime = limit }

// SetHold changes for how long files are held back after their first reload that failed.
func (m *Manager) SetHold(first time.Duration) { m.holds.first = first }

// Holds are the files that are held back.
type Holds struct{ holds }

// NewHolds holds nothing back.
func NewHolds() *Holds { return &Holds{holds{first: HoldFirst}} }

// Failed, Worked and Left are for files that HAProxy could not load, or could, and that may be held back.
func (h *Holds) Failed(files haproxy.Files)             { h.failed(files, errKept) }
func (h *Holds) Worked(files haproxy.Files)             { h.worked(files) }
func (h *Holds) Left(files haproxy.Files) time.Duration { return h.left(files) }

// Knows says whether a Manager that has ended takes a word for a server that is added at run time.
func (m *Manager) Knows(word string) bool { return m.live.planner.keywords[word].Dynamic }

// Patience is how long a save waits for quiet, and at most, where the last one took so long.
func Patience(took time.Duration) (quiet, limit time.Duration) { return patience(took) }

// ProbeBinds is the search for taken addresses, from two configurations.
func ProbeBinds(running, next string) error {
	return probeBinds(context.Background(), binds([]byte(running), nil), binds([]byte(next), nil))
}

// BindAddresses are the addresses that can be judged.
func BindAddresses(config string) []string {
	out := []string{}
	for _, b := range binds([]byte(config), nil) {
		if b.name != "" {
			out = append(out, fmt.Sprintf("%s:%d", b.name, b.addr.Port()))
			continue
		}
		out = append(out, b.addr.String())
	}
	return out
}

// ChildEnv is what haproxy inherits of an environment.
func ChildEnv(env []string) []string { return childEnv(env) }

// Lines is what is kept and logged of a text that haproxy prints in pieces.
func Lines(pieces ...string) []string {
	o := newOutput(slog.New(slog.DiscardHandler))
	for _, p := range pieces {
		_, _ = o.Write([]byte(p))
	}
	return o.lines
}
