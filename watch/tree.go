package watch

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The limits of a template directory. They turn a mistake, such as the root directory, into a clear error.
const (
	MaxFiles     = 1000
	MaxFileBytes = 4 << 20
)

// ReadDir returns the text of every regular file below dir, by its slash-separated path relative to dir. It follows
// links. It skips the leftovers of editors and Kubernetes: names that begin with a dot, backup and swap files.
func ReadDir(dir string) (map[string]string, error) { return ReadDirOnly(dir, nil) }

// ReadDirOnly is ReadDir for the files and directories that only chooses by their relative path; nil means all.
func ReadDirOnly(dir string, only func(name string) bool) (map[string]string, error) {
	t := tree{root: dir, only: only, files: map[string]string{}}
	if err := t.walk("", nil); err != nil {
		return nil, err
	}
	return t.files, nil
}

// tree is a directory being read.
type tree struct {
	root  string
	only  func(name string) bool
	files map[string]string
	enter func(dir string) // called before a directory is read; may be nil
}

// walk reads one directory; above holds the directories around it, to detect a link that leads back.
func (t *tree) walk(rel string, above []fs.FileInfo) error {
	full := filepath.Join(t.root, filepath.FromSlash(rel))
	info, err := os.Stat(full)
	if err != nil {
		return fmt.Errorf("read templates: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("read templates: %s is not a directory", full)
	}
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		return fmt.Errorf("read templates: %s is a link to a directory that contains it", full)
	}
	if t.enter != nil {
		t.enter(full)
	}
	entries, err := os.ReadDir(full)
	if err != nil {
		return fmt.Errorf("read templates: %w", err)
	}
	above = append(slices.Clone(above), info)
	for _, e := range entries {
		if ignored(e.Name()) || t.only != nil && !t.only(path.Join(rel, e.Name())) {
			continue
		}
		if err := t.entry(path.Join(rel, e.Name()), above); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) entry(rel string, above []fs.FileInfo) error {
	full := filepath.Join(t.root, filepath.FromSlash(rel))
	info, err := os.Stat(full)
	switch {
	case err != nil:
		return fmt.Errorf("read templates: %w", err)
	case info.IsDir():
		return t.walk(rel, above)
	case !info.Mode().IsRegular():
		return nil // opening a pipe would wait for its writer
	case len(t.files) == MaxFiles:
		return fmt.Errorf("read templates: more than %d files below %s", MaxFiles, t.root)
	}
	text, err := readFile(full)
	if err != nil {
		return fmt.Errorf("read templates: %w", err)
	}
	t.files[rel] = text
	return nil
}

func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }() // read only
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return "", err
	}
	if len(text) > MaxFileBytes {
		return "", fmt.Errorf("%s is longer than %d bytes", name, MaxFileBytes)
	}
	return string(text), nil
}

// ignored reports whether a name belongs to an editor (vim creates "4913" to test whether a directory is writable) or to
// the "..data" links of Kubernetes.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") ||
		strings.HasSuffix(name, ".swx") || name == "4913" || strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}
