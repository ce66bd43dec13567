package reload

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

	"golang.org/x/sys/unix"

	"nuncio/internal/haproxy"
)

const (
	generationsDir = "generations"
	currentLink    = "current"
	pendingLink    = ".current.new"
	manifestFile   = "manifest.json"
	ownConfigFile  = "nuncio.cfg"
	lockFile       = "lock"
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

// Generations lists the generations in a state directory, oldest first. It takes no lock and may be called
// beside a running Manager.
func Generations(stateDir string) ([]Generation, error) {
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

// ReadGeneration reads one generation back. It returns an error when the files are not those that were
// written.
func ReadGeneration(stateDir string, number int64) (Generation, haproxy.Files, error) {
	dir := generationPath(stateDir, number)
	g, err := readManifest(dir)
	if err != nil {
		return Generation{}, haproxy.Files{}, fmt.Errorf("read generation %d: %w", number, err)
	}
	files, err := readFiles(dir)
	if err != nil {
		return Generation{}, haproxy.Files{}, fmt.Errorf("read generation %d: %w", number, err)
	}
	if files.Digest() != g.Digest {
		return Generation{}, haproxy.Files{}, fmt.Errorf("read generation %d: its files in %s were changed after they were checked", number, dir)
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
	_, files, err := ReadGeneration(stateDir, number)
	return files, err
}

func generationPath(stateDir string, number int64) string {
	return filepath.Join(stateDir, generationsDir, strconv.FormatInt(number, 10))
}

// currentNumber follows the link; 0 when there is none.
func currentNumber(stateDir string) (int64, error) {
	target, err := os.Readlink(filepath.Join(stateDir, currentLink))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(filepath.Base(target), 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("link %s: it leads to %q, which is no generation", filepath.Join(stateDir, currentLink), target)
	}
	return n, nil
}

func readManifest(dir string) (Generation, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return Generation{}, err
	}
	var g Generation
	if err := json.Unmarshal(b, &g); err != nil {
		return Generation{}, fmt.Errorf("%s: %w", filepath.Join(dir, manifestFile), err)
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
		if err != nil || d.IsDir() || name == manifestFile || name == ownConfigFile {
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

// store is the state directory, held by one process.
type store struct {
	dir     string
	sockets string // directory of the Runtime API socket, named in nuncio.cfg
	lock    *os.File
}

// openStore makes the directories, takes the lock and removes what a crash left behind.
func openStore(dir, runDir string) (*store, error) {
	for _, d := range []string{dir, filepath.Join(dir, generationsDir), runDir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, fmt.Errorf("state directory: %w; it must be writable and survive a restart of the container", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("state directory %s: another nuncio uses it; give each one its own", dir)
		}
		return nil, fmt.Errorf("state directory %s: lock: %w", dir, err)
	}
	s := &store{dir: dir, sockets: runDir, lock: f}
	if err := s.clean(); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("state directory %s: remove leftovers: %w", dir, err)
	}
	return s, nil
}

func (s *store) close() { _ = s.lock.Close() }

// clean removes generations that have no manifest: the ones a crash cut short before they were checked.
func (s *store) clean() error {
	if err := os.Remove(filepath.Join(s.dir, pendingLink)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, generationsDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(s.dir, generationsDir, e.Name())
		if _, err := readManifest(path); err != nil {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// next is the number of the next generation.
func (s *store) next() (int64, error) {
	dir := filepath.Join(s.dir, generationsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil { // someone may have tidied up
		return 0, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	var last int64
	for _, e := range entries {
		if n, err := strconv.ParseInt(e.Name(), 10, 64); err == nil {
			last = max(last, n)
		}
	}
	return last + 1, nil
}

// write puts files into a new generation, synced, without a manifest: until seal adds one the generation does
// not count. On an error nothing is left.
func (s *store) write(files haproxy.Files) (number int64, err error) {
	number, err = s.next()
	if err != nil {
		return 0, fmt.Errorf("write generation: %w", err)
	}
	dir := generationPath(s.dir, number)
	defer func() {
		if err != nil {
			_ = os.RemoveAll(dir) // what stays has no manifest and goes at the next start
			err = fmt.Errorf("write generation %d: %w", number, err)
		}
	}()
	if err := writeFiles(dir, files); err != nil {
		return number, err
	}
	if err := writeSynced(filepath.Join(dir, ownConfigFile), ownConfig(s.sockets)); err != nil {
		return number, err
	}
	return number, syncDirs(dir)
}

// seal marks a generation as checked.
func (s *store) seal(g Generation) error {
	b, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	dir := generationPath(s.dir, g.Number)
	if err := writeSynced(filepath.Join(dir, manifestFile), append(b, '\n')); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	// The directory's own name has to be on disk before a link leads to it.
	if err := errors.Join(syncDir(dir), syncDir(filepath.Dir(dir))); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// swap makes a generation the current one, by rename; 0 means none.
func (s *store) swap(number int64) error {
	link := filepath.Join(s.dir, currentLink)
	pending := filepath.Join(s.dir, pendingLink)
	if number == 0 {
		if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("swap the current generation: %w", err)
		}
		return nil
	}
	if err := os.Remove(pending); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("swap the current generation: %w", err)
	}
	if err := os.Symlink(filepath.Join(generationsDir, strconv.FormatInt(number, 10)), pending); err != nil {
		return fmt.Errorf("swap the current generation: %w", err)
	}
	if err := os.Rename(pending, link); err != nil {
		return fmt.Errorf("swap the current generation: %w", err)
	}
	return syncDir(s.dir)
}

func (s *store) remove(number int64) error {
	return os.RemoveAll(generationPath(s.dir, number))
}

// prune keeps the newest generations and the current one.
func (s *store) prune(keep int) error {
	all, err := Generations(s.dir)
	if err != nil {
		return err
	}
	var errs []error
	for i, g := range all {
		if i < len(all)-keep && !g.Current {
			errs = append(errs, s.remove(g.Number))
		}
	}
	return errors.Join(errs...)
}
