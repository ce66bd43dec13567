package haproxy

import (
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"sync"
)

// ConfigFile is the name of the main configuration in every set of Files.
const ConfigFile = "haproxy.cfg"

// Files is one complete, immutable set of configuration files: the main configuration, and the maps, ACL
// lists, error pages and other files that the templates produce. Names are slash-separated, relative and sorted.
// The zero value is an empty set.
type Files struct {
	names  []string
	texts  map[string]Text
	digest func() string // nil only for the zero value
}

// NewFiles copies content, whose keys are relative slash-separated names. It returns an error for a name
// that is absolute or would leave the directory that the files are written to.
func NewFiles(content map[string][]byte) (Files, error) {
	texts := make(map[string]Text, len(content))
	for name, b := range content {
		texts[name] = NewText(string(b))
	}
	return FilesOf(texts)
}

// FilesOf is NewFiles for existing texts. It does not copy them.
func FilesOf(texts map[string]Text) (Files, error) {
	f := Files{names: slices.Sorted(maps.Keys(texts)), texts: maps.Clone(texts)}
	for _, name := range f.names {
		if !fs.ValidPath(name) || name == "." {
			return Files{}, fmt.Errorf("file name %q: want a relative path without . or .. in it", name)
		}
	}
	f.digest = sync.OnceValue(func() string { return digest(f.names, f.texts) })
	return f, nil
}

// With returns the set with other texts for some of its files.
func (f Files) With(texts map[string]Text) Files {
	g := Files{names: f.names, texts: maps.Clone(f.texts)}
	for name, t := range texts {
		if _, there := g.texts[name]; there {
			g.texts[name] = t
		}
	}
	g.digest = sync.OnceValue(func() string { return digest(g.names, g.texts) })
	return g
}

// Is reports whether both are the very same set: a quick answer, which may be false for equal ones.
func (f Files) Is(g Files) bool {
	return len(f.names) > 0 && len(f.names) == len(g.names) && reflect.ValueOf(f.texts).Pointer() == reflect.ValueOf(g.texts).Pointer()
}

// SameNames reports whether both sets have files of the same names.
func (f Files) SameNames(g Files) bool { return slices.Equal(f.names, g.names) }

// Names returns the names of the files, sorted.
func (f Files) Names() []string { return slices.Clone(f.names) }

// Get returns a copy of the content of a file, and whether the file exists.
func (f Files) Get(name string) ([]byte, bool) {
	t, ok := f.texts[name]
	if !ok {
		return nil, false
	}
	b := make([]byte, 0, t.size)
	for _, p := range t.pieces {
		b = append(b, p.text...)
	}
	return b, true
}

// Has reports whether the file exists.
func (f Files) Has(name string) bool {
	_, there := f.texts[name]
	return there
}

// Text returns the content of a file; it is empty if the file does not exist.
func (f Files) Text(name string) Text { return f.texts[name] }

// Config returns a copy of the main configuration, or nil if the set has none.
func (f Files) Config() []byte {
	b, _ := f.Get(ConfigFile)
	return b
}

// Digest identifies names and contents: equal sets have equal digests. It is empty only for the zero value.
func (f Files) Digest() string {
	if f.digest == nil {
		return ""
	}
	return f.digest()
}

// Equal reports whether both sets have the same names with the same bytes.
func (f Files) Equal(g Files) bool {
	return (f.digest == nil) == (g.digest == nil) && slices.Equal(f.names, g.names) && maps.EqualFunc(f.texts, g.texts, Text.Equal)
}
