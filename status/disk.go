package status

import (
	"errors"
	"io/fs"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
)

// Disk is what a state directory keeps of the past.
type Disk interface {
	// Generations and TemplateSets list what there is, oldest first.
	Generations() ([]reload.Generation, error)
	TemplateSets() ([]reconcile.TemplateSet, error)
	// Files reads one generation.
	Files(generation int64) (haproxy.Files, error)
}

// StateDir is the state directory at a path. It can be read beside a running nuncio and without one.
type StateDir string

// Generations lists the generations; there are none before HAProxy has been started from the directory.
func (d StateDir) Generations() ([]reload.Generation, error) {
	all, err := reload.Generations(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return all, err
}

// TemplateSets lists the template sets that HAProxy has run.
func (d StateDir) TemplateSets() ([]reconcile.TemplateSet, error) {
	return reconcile.TemplateSets(string(d))
}

// Files reads one generation.
func (d StateDir) Files(generation int64) (haproxy.Files, error) {
	_, files, err := reload.ReadGeneration(string(d), generation)
	return files, err
}

// Generation is one set of files on disk, as documents show it.
type Generation struct {
	Number      int64       `json:"generation"`
	Revision    int64       `json:"revision"`
	Digest      string      `json:"digest"`
	Created     time.Time   `json:"created"`
	Current     bool        `json:"current"`
	Kind        reload.Kind `json:"kind,omitempty"`
	TemplateSet int64       `json:"template_set,omitempty"`
	// Changes counts the endpoint changes since HAProxy was started or reloaded.
	Changes int64 `json:"changes,omitempty"`
}

func showGenerations(all []reload.Generation) []Generation {
	out := make([]Generation, 0, len(all))
	for _, g := range all {
		out = append(out, Generation{g.Number, g.Revision, g.Digest, g.Created, g.Current, g.Kind, g.TemplateSet, g.Changes})
	}
	return out
}
