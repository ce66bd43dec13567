// Package templates holds the templates that nuncio ships, embedded into the program.
//
// It promises a tree that makes a complete configuration for HAProxy 2.6 and later out of any snapshot, and
// whose text explains itself to operators who copy and change it. It refuses to hold any other code: the
// templates are the content of this package.
//
//	tree := templates.Shipped()
//	tree["haproxy.cfg.tmpl"] // the text of the main template
package templates

import (
	"embed"
	"fmt"
	"io/fs"
)

// FS holds the shipped templates under the names that render.New wants.
//
//go:embed haproxy.cfg.tmpl _backend.tmpl maps/routes.map.tmpl errors/503.http
var FS embed.FS

// Shipped returns the shipped templates by name, in a map of the caller's own.
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
		// Reading what the compiler put into the program cannot go wrong.
		panic(fmt.Sprintf("read the embedded templates: %v", err))
	}
	return tree
}
