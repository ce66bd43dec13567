package reload

import (
	"nuncio/internal/haproxy"
	"nuncio/reload/internal/generation"
)

// Generation describes one set of files on disk that has passed "haproxy -c".
type Generation = generation.Generation

// Kind says what a generation was made for.
type Kind = generation.Kind

// The kinds of generations.
const (
	KindStart     = generation.KindStart     // HAProxy was started with it
	KindReload    = generation.KindReload    // HAProxy was reloaded with it
	KindEndpoints = generation.KindEndpoints // HAProxy runs it after changes by commands
)

// Generations returns the generations in a state directory, oldest first. It takes no lock and may be called beside a
// running Manager.
func Generations(stateDir string) ([]Generation, error) { return generation.List(stateDir) }

// ReadGeneration reads one generation back. It returns an error when the files are not those that were written.
func ReadGeneration(stateDir string, number int64) (Generation, haproxy.Files, error) {
	return generation.Read(stateDir, number)
}

// Current reads the files of the current generation of a state directory. It returns an error when there is none, or when
// it is not what was written.
func Current(stateDir string) (haproxy.Files, error) { return generation.Current(stateDir) }
