package reconcile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/haproxy"
	"nuncio/reload"
	"nuncio/render"
)

const templateSetsDir = "template-sets"

// TemplateSet describes templates and settings that HAProxy has run. Records are no part of it.
type TemplateSet struct {
	Number   int64     `json:"number"`
	Digest   string    `json:"digest"`
	FirstRun time.Time `json:"first_run"`
	LastRun  time.Time `json:"last_run"`
	// Current: the current generation was rendered with it.
	Current bool `json:"current,omitempty"`
}

// storedSet is a file in the directory of template sets: all that a rendering needs but the records.
type storedSet struct {
	TemplateSet
	content
}

// content is what the digest of a template set is made of. Templates are bytes, since a file that is copied may be no text.
type content struct {
	Settings  map[string]string `json:"settings"`
	Templates map[string][]byte `json:"templates"`
}

func (c content) digest() (string, error) {
	text, err := json.Marshal(c) // maps are sorted
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// templateSet is a template set that can render.
type templateSet struct {
	content   content
	digest    string
	templates *render.Templates
	number    int64 // 0 until it is on disk

	retry     retry
	files     *haproxy.Files // what it rendered last; nil at first
	attempted bool           // its turn has come at least once
	tried     bool           // so far that HAProxy was given what it renders
	failed    bool           // HAProxy would not run files
}

// newTemplateSet parses templates. Its error is a *render.Error.
func newTemplateSet(tree map[string]string, opts render.Options) (*templateSet, error) {
	c := content{Settings: opts.Settings, Templates: make(map[string][]byte, len(tree))}
	for name, text := range tree {
		c.Templates[name] = []byte(text)
	}
	digest, err := c.digest()
	if err != nil {
		return nil, err
	}
	templates, err := render.New(tree, opts)
	if err != nil {
		return nil, err
	}
	return &templateSet{content: c, digest: digest, templates: templates, retry: retry{due: time.Now()}}, nil
}

// TemplateSets lists the template sets on disk, oldest first. One that cannot be read is left out of the list and named in
// the error.
func TemplateSets(stateDir string) ([]TemplateSet, error) {
	entries, err := os.ReadDir(filepath.Join(stateDir, templateSetsDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var sets []TemplateSet
	errs := []error{err}
	for _, entry := range entries {
		number, err := strconv.ParseInt(strings.TrimSuffix(entry.Name(), ".json"), 10, 64)
		if err != nil {
			continue // a file that was being written when nuncio was killed
		}
		stored, err := readTemplateSet(stateDir, number)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		sets = append(sets, stored.TemplateSet)
	}
	slices.SortFunc(sets, func(a, b TemplateSet) int { return int(a.Number - b.Number) })
	// A nuncio that was killed has not noted the end of a set. The generations tell more.
	generations, err := reload.Generations(stateDir)
	if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, g := range generations {
		for i := range sets {
			if set := &sets[i]; set.Number == g.TemplateSet {
				set.Current = g.Current
				if g.Created.After(set.LastRun) {
					set.LastRun = g.Created
				}
			}
		}
	}
	return sets, errors.Join(errs...)
}

func templateSetPath(stateDir string, number int64) string {
	return filepath.Join(stateDir, templateSetsDir, strconv.FormatInt(number, 10)+".json")
}

func readTemplateSet(stateDir string, number int64) (storedSet, error) {
	var stored storedSet
	text, err := os.ReadFile(templateSetPath(stateDir, number))
	if err == nil {
		err = json.Unmarshal(text, &stored)
	}
	if err != nil {
		return stored, fmt.Errorf("template set %d: %w", number, err)
	}
	if digest, err := stored.digest(); err != nil || digest != stored.Digest || stored.Number != number {
		return stored, fmt.Errorf("template set %d: %s is not as nuncio wrote it", number, templateSetPath(stateDir, number))
	}
	return stored, nil
}

// setHistory keeps the template sets that HAProxy has run on disk.
type setHistory struct {
	dir    string // the state directory; empty: nothing is kept
	keep   int
	newest TemplateSet
	failed string // the last error that was logged
}

// load makes a stored set ready to render, with its own settings.
func (h *setHistory) load(number int64, opts render.Options) (*templateSet, TemplateSet, error) {
	stored, err := readTemplateSet(h.dir, number)
	if err != nil {
		return nil, TemplateSet{}, err
	}
	tree := make(map[string]string, len(stored.Templates))
	for name, text := range stored.Templates {
		tree[name] = string(text)
	}
	opts.Settings = stored.Settings
	set, err := newTemplateSet(tree, opts)
	if err != nil {
		return nil, TemplateSet{}, fmt.Errorf("template set %d: %w", number, err)
	}
	set.number = number
	return set, stored.TemplateSet, nil
}

// numberOf is the number that a set has, or gets when HAProxy has run it; 0 if nothing is kept.
func (h *setHistory) numberOf(set *templateSet) int64 {
	switch {
	case h.dir == "" || set.number > 0:
		return set.number
	case set.digest == h.newest.Digest:
		return h.newest.Number
	}
	return h.newest.Number + 1
}

// record notes that HAProxy has run a set, and removes the oldest beyond what is to be kept, but never those in use.
func (h *setHistory) record(set *templateSet, inUse ...int64) error {
	stored := storedSet{TemplateSet{Number: h.numberOf(set), Digest: set.digest, FirstRun: time.Now().UTC()}, set.content}
	if stored.Number == h.newest.Number {
		stored.FirstRun = h.newest.FirstRun
	}
	if err := h.write(stored); err != nil {
		return err
	}
	set.number, h.newest = stored.Number, stored.TemplateSet
	sets, err := TemplateSets(h.dir)
	for i, old := range sets {
		if i < len(sets)-h.keep && !slices.Contains(inUse, old.Number) {
			err = errors.Join(err, os.Remove(templateSetPath(h.dir, old.Number)))
		}
	}
	return err
}

func (h *setHistory) write(stored storedSet) error {
	stored.LastRun = time.Now().UTC()
	text, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(h.dir, templateSetsDir), 0o700); err != nil {
		return err
	}
	return renameio.WriteFile(templateSetPath(h.dir, stored.Number), append(text, '\n'), 0o600)
}

// ran records a set that HAProxy has confirmed.
func (r *Reconciler) ran(set *templateSet) {
	if r.sets.dir == "" || set.number > 0 {
		return
	}
	var inUse []int64
	for _, other := range []*templateSet{r.current, r.candidate} {
		if other != nil {
			inUse = append(inUse, other.number)
		}
	}
	r.historyFailed(r.sets.record(set, inUse...))
}

// leaveTemplateSet notes the time until which HAProxy ran the current set.
func (r *Reconciler) leaveTemplateSet() {
	if r.current == nil || r.current.number == 0 {
		return
	}
	stored, err := readTemplateSet(r.sets.dir, r.current.number)
	if err == nil {
		err = r.sets.write(stored)
	}
	r.historyFailed(err)
}

// historyFailed logs an error of the history, once for as long as it lasts; nil ends it.
func (r *Reconciler) historyFailed(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if r.sets.failed != text && err != nil {
		r.opts.Logger.Warn("history of template sets incomplete, rollback may not reach them", "err", err)
	}
	r.sets.failed = text
}
