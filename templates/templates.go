// Package templates holds the templates that nuncio ships, embedded into the program.
//
// It promises a tree that makes a complete configuration for HAProxy 2.6 and later from any snapshot, with comments for
// operators who copy and change it. It contains no other code.
//
//	tree := templates.Shipped()
//	tree["haproxy.cfg.tmpl"] // the text of the main template
package templates

import (
	"embed"
	"fmt"
	"io/fs"
)

// FS has the shipped templates, under the names that render.New expects.
//
//go:embed haproxy.cfg.tmpl _*.tmpl maps errors
var FS embed.FS

// Shipped returns the shipped templates by name, in a new map.
func Shipped() map[string]string {
	tree := make(map[string]string)
	err := fs.WalkDir(FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := FS.ReadFile(name)
		tree[name] = string(text)
		return err
	})
	if err != nil {
		// Embedded files can always be read.
		panic(fmt.Sprintf("read the embedded templates: %v", err))
	}
	return tree
}
