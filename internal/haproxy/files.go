package haproxy

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

// ConfigFile is the name of the main configuration in every set of Files.
const ConfigFile = "haproxy.cfg"

// Files is one complete, immutable set of configuration files: the main configuration, and the maps, ACL
// lists, error pages and whatever else the templates make. Names are slash-separated, relative and sorted.
// The zero value is an empty set.
type Files struct {
	names  []string
	texts  map[string]Text
	digest func() string // nil for the zero value only
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

// FilesOf is NewFiles for texts that exist already. It copies none of them.
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

// Names lists the files, sorted.
func (f Files) Names() []string { return slices.Clone(f.names) }

// Get returns a copy of the content of one file, and whether there is such a file.
func (f Files) Get(name string) ([]byte, bool) {
	t, ok := f.texts[name]
	if !ok {
		return nil, false
	}
	b := make([]byte, 0, t.size)
	for p := range t.Pieces() {
		b = append(b, p...)
	}
	return b, true
}

// Text is the content of one file; empty when there is no such file.
func (f Files) Text(name string) Text { return f.texts[name] }

// Config is a copy of the main configuration; nil when the set has none.
func (f Files) Config() []byte {
	b, _ := f.Get(ConfigFile)
	return b
}

// Digest identifies names and contents: equal sets have equal digests. It is empty for the zero value only.
func (f Files) Digest() string {
	if f.digest == nil {
		return ""
	}
	return f.digest()
}

// Equal says whether both sets hold the same names with the same bytes.
func (f Files) Equal(g Files) bool {
	return (f.digest == nil) == (g.digest == nil) && slices.Equal(f.names, g.names) && maps.EqualFunc(f.texts, g.texts, Text.Equal)
}
