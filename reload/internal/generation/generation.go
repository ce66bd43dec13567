package generation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"nuncio/internal/haproxy"
)

const (
	generationsDir = "generations"
	pendingLink    = ".current.new"
	lockFile       = "lock"

	// CurrentLink is the name of the symbolic link to the current generation, in the state directory.
	CurrentLink = "current"
	// OwnConfigFile is the configuration that nuncio adds to each generation, and loads before the operator's.
	OwnConfigFile = "nuncio.cfg"
	// ManifestFile describes a generation. One without it has not passed "haproxy -c".
	ManifestFile = "manifest.json"
)

// Kind says what a generation was made for.
type Kind string

// The kinds of generations.
const (
	KindStart     Kind = "start"     // HAProxy was started with it
	KindReload    Kind = "reload"    // HAProxy was reloaded with it
	KindEndpoints Kind = "endpoints" // HAProxy runs it after changes by commands
)

// Generation describes one set of files on disk that has passed "haproxy -c".
type Generation struct {
	Number   int64     `json:"number"`
	Revision int64     `json:"revision"`
	Digest   string    `json:"digest"` // of the submitted files, without nuncio's own
	Created  time.Time `json:"created"`
	Current  bool      `json:"-"`
	Kind     Kind      `json:"kind,omitempty"`
	// TemplateSet is the number of the template set that rendered the files; 0 if it is not known.
	TemplateSet int64 `json:"template_set,omitempty"`
	// Changes counts the changes of endpoints since the last start or reload of HAProxy.
	Changes int64 `json:"changes,omitempty"`
}

// List returns the generations in a state directory, oldest first. It takes no lock and may be called
// beside a running Manager.
func List(stateDir string) ([]Generation, error) {
	entries, err := os.ReadDir(filepath.Join(stateDir, generationsDir))
	if err != nil {
		return nil, fmt.Errorf("list generations: %w", err)
	}
	current, _ := currentNumber(stateDir) // no link: none is current
	var out []Generation
	for _, e := range entries {
		g, err := readManifest(filepath.Join(stateDir, generationsDir, e.Name()))
		if err != nil || strconv.FormatInt(g.Number, 10) != e.Name() {
			continue // it is being written, or a crash left it behind
		}
		g.Current = g.Number == current
		out = append(out, g)
	}
	slices.SortFunc(out, func(a, b Generation) int { return int(a.Number - b.Number) })
	return out, nil
}

// Read reads one generation back. It returns an error when the files are not those that were written.
func Read(stateDir string, number int64) (Generation, haproxy.Files, error) {
	dir := Path(stateDir, number)
	var files haproxy.Files
	g, err := readManifest(dir)
	if err == nil {
		files, err = readFiles(dir)
	}
	if err == nil && files.Digest() != g.Digest {
		err = fmt.Errorf("its files in %s were changed after they were checked", dir)
	}
	if err != nil {
		return Generation{}, haproxy.Files{}, fmt.Errorf("read generation %d: %w", number, err)
	}
	current, _ := currentNumber(stateDir) // no link: none is current
	g.Current = g.Number == current
	return g, files, nil
}

// Current reads the files of the current generation of a state directory. It returns an error when there is
// none, or when it is not what was written.
func Current(stateDir string) (haproxy.Files, error) {
	number, err := currentNumber(stateDir)
	if err == nil && number == 0 {
		err = errors.New("there is none; nuncio has not started haproxy from this state directory yet")
	}
	if err != nil {
		return haproxy.Files{}, fmt.Errorf("current generation of %s: %w", stateDir, err)
	}
	_, files, err := Read(stateDir, number)
	return files, err
}

// Path returns the directory of a generation.
func Path(stateDir string, number int64) string {
	return filepath.Join(stateDir, generationsDir, strconv.FormatInt(number, 10))
}

// currentNumber follows the link; 0 if there is none.
func currentNumber(stateDir string) (int64, error) {
	target, err := os.Readlink(filepath.Join(stateDir, CurrentLink))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(filepath.Base(target), 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("link %s: it leads to %q instead of a generation", filepath.Join(stateDir, CurrentLink), target)
	}
	return n, nil
}

func readManifest(dir string) (Generation, error) {
	b, err := os.ReadFile(filepath.Join(dir, ManifestFile))
	if err != nil {
		return Generation{}, err
	}
	var g Generation
	if err := json.Unmarshal(b, &g); err != nil {
		return Generation{}, fmt.Errorf("%s: %w", filepath.Join(dir, ManifestFile), err)
	}
	return g, nil
}

// readFiles reads the submitted files of a generation, without the two of our own.
func readFiles(dir string) (haproxy.Files, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return haproxy.Files{}, err
	}
	defer func() { _ = root.Close() }() // only read
	content := map[string][]byte{}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == ManifestFile || name == OwnConfigFile {
			return err
		}
		content[name], err = root.ReadFile(name)
		return err
	})
	if err != nil {
		return haproxy.Files{}, err
	}
	return haproxy.NewFiles(content)
}
