package reload

import (
	"crypto/sha256"
	"io"
	"slices"
	"time"

	"nuncio/internal/haproxy"
)

// HoldFirst and HoldMost bound how long files are held back that HAProxy has failed to load although "haproxy -c" passed
// them: after each failure twice as long. Before it gave up, it closed every listener for two seconds.
const (
	HoldFirst = 10 * time.Second
	HoldMost  = 5 * time.Minute
)

const holdsKept = 16

// holds are the structures of files that HAProxy has failed to load. What it fails on is never a server, so a change of
// services makes no files of another structure, and must not cause the next outage.
type holds struct {
	first time.Duration
	all   []hold // the newest last
}

type hold struct {
	structure string
	reason    string
	wait      time.Duration
	until     time.Time
}

// heldError is why files are not tried now.
type heldError struct {
	reason string // why they failed
}

func (e *heldError) Error() string {
	return e.reason + "; trying it costs requests, so nuncio waits before it tries such files again"
}

// failed holds files back, twice as long as the last time.
func (h *holds) failed(files haproxy.Files, err error) {
	n := hold{structure: structure(files), reason: err.Error(), wait: h.first}
	if i := h.index(n.structure); i >= 0 {
		n.wait = min(2*h.all[i].wait, HoldMost)
		h.all = slices.Delete(h.all, i, i+1)
	}
	n.until = time.Now().Add(n.wait)
	h.all = append(h.all, n)
	if len(h.all) > holdsKept {
		h.all = slices.Delete(h.all, 0, 1)
	}
}

// worked is for files that HAProxy has loaded.
func (h *holds) worked(files haproxy.Files) {
	if i := h.find(files); i >= 0 {
		h.all = slices.Delete(h.all, i, i+1)
	}
}

// refuse returns a *heldError for files that are held back.
func (h *holds) refuse(files haproxy.Files) error {
	if i := h.find(files); i >= 0 && time.Now().Before(h.all[i].until) {
		return &heldError{h.all[i].reason}
	}
	return nil
}

// left is for how long files are held back yet.
func (h *holds) left(files haproxy.Files) time.Duration {
	if i := h.find(files); i >= 0 {
		return max(0, time.Until(h.all[i].until))
	}
	return 0
}

func (h *holds) find(files haproxy.Files) int {
	if len(h.all) == 0 {
		return -1 // as always, nearly: a structure costs time to find
	}
	return h.index(structure(files))
}

func (h *holds) index(structure string) int {
	return slices.IndexFunc(h.all, func(o hold) bool { return o.structure == structure })
}

// structure stands for all of a set of files but the servers, and the entries of maps and lists of patterns.
func structure(files haproxy.Files) string {
	m, err := newModel(files.Text(haproxy.ConfigFile))
	if err != nil {
		return files.Digest()
	}
	sum := sha256.New()
	write := func(text string) { _, _ = io.WriteString(sum, text+"\x00") } // a hash takes everything
	patterns := map[string]bool{haproxy.ConfigFile: true}
	for _, s := range m.sections {
		write(s.shape)
		for _, name := range slices.Concat(s.maps, s.acls) {
			patterns[name] = true
		}
	}
	for _, name := range files.Names() {
		if !patterns[name] {
			write(name)
			write(files.Text(name).String())
		}
	}
	return string(sum.Sum(nil))
}
