package confd

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// mainFile is the name of HAProxy's configuration in nuncio.
const mainFile = "haproxy.cfg"

// Options are what the command line adds to confd's directory.
type Options struct {
	// Prefix is taken off all keys, in place of the resources' own prefixes.
	Prefix string
}

// Layout is what confd's directory says about HAProxy.
type Layout struct {
	// Resources are HAProxy's. The first makes haproxy.cfg.
	Resources []*Resource
	// directories has the notes about directories that the configuration names and that resources write into.
	directories []string
	// Foreign resources are for other programs, and left to confd.
	Foreign []*Resource
}

// Parse reads the resources of confd's directory, given as texts by their paths relative to it.
func Parse(tree map[string]string, o Options) (*Layout, error) {
	var all []*Resource
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		if !strings.HasPrefix(name, ResourceDir+"/") || !strings.HasSuffix(name, "toml") { // confd's pattern is *toml
			continue
		}
		r, err := readResource(name, tree[name], o.Prefix)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	if len(all) == 0 {
		return nil, &Error{File: ResourceDir, Message: "it holds no *.toml: --confd wants confd's own directory, such as /etc/confd, with conf.d/ and templates/"}
	}
	main, err := chooseMain(all)
	if err != nil {
		return nil, err
	}
	main.Out = mainFile
	l := &Layout{Resources: []*Resource{main}}
	for _, r := range all {
		switch {
		case r == main:
		case r.belongsTo(main, tree[main.Src]):
			r.Out = outName(r.Dest, path.Dir(main.Dest))
			l.Resources = append(l.Resources, r)
		default:
			l.Foreign = append(l.Foreign, r)
		}
	}
	l.noteDirectories(tree[main.Src])
	return l, l.check(tree)
}

// chooseMain finds the resource that makes HAProxy's configuration: the one whose dest is haproxy.cfg, or the only one, or
// the only one of a .cfg or .conf file that has to do with HAProxy.
func chooseMain(all []*Resource) (*Resource, error) {
	if len(all) == 1 {
		return all[0], nil
	}
	for _, chosen := range []func(*Resource) bool{
		func(r *Resource) bool { return path.Base(r.Dest) == mainFile },
		func(r *Resource) bool {
			ext := path.Ext(r.Dest)
			return (ext == ".cfg" || ext == ".conf") && (strings.Contains(r.Dest, "haproxy") || strings.Contains(r.cmds, "haproxy"))
		},
	} {
		found := slices.DeleteFunc(slices.Clone(all), func(r *Resource) bool { return !chosen(r) })
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return nil, found[1].Fault("dest", "both this resource and %s make HAProxy's configuration (%s and %s): nuncio runs one HAProxy for each directory, so move one of them to a directory of its own",
				found[0].File, found[1].Dest, found[0].Dest)
		}
	}
	return nil, &Error{File: ResourceDir, Message: fmt.Sprintf("none of its %d resources has a dest named %s: which one HAProxy reads first cannot be told; name it so", len(all), mainFile)}
}

// belongsTo reports whether a resource makes a file for the same HAProxy: one beside its configuration or below it, in a directory
// of haproxy's, one that the configuration's template names, or one whose commands are about haproxy.
func (r *Resource) belongsTo(main *Resource, template string) bool {
	dir := path.Dir(main.Dest)
	return strings.Contains(dir, "haproxy") && strings.HasPrefix(r.Dest, dir+"/") || names(template, r.Dest) || strings.Contains(r.cmds, "haproxy")
}

func names(text, file string) bool {
	for rest := text; ; {
		at := strings.Index(rest, file)
		if at < 0 {
			return false
		}
		if end := at + len(file); (at == 0 || !inPath(rest[at-1])) && (end == len(rest) || !inPath(rest[end])) {
			return true
		}
		rest = rest[at+1:]
	}
}

// inPath reports whether a byte next to a path would make it another path.
func inPath(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("_.-/", c) >= 0
}

// noteDirectories finds directories that the configuration names as a whole. Other files may lie there, so their names stay as they
// are; but what confd wrote there nuncio writes elsewhere.
func (l *Layout) noteDirectories(template string) {
	for _, r := range l.Resources[1:] {
		dir := path.Dir(r.Dest)
		if names(template, dir) || names(template, dir+"/") {
			l.directories = append(l.directories, fmt.Sprintf("%s: the template names the directory %s as a whole, where the file of today stays as it is: "+
				"nuncio writes %s into its generation; name that file, or the directory %s/", r.File, dir, r.Out, path.Dir(r.Out)))
		}
	}
}

// outName returns where a file lies in nuncio: as it lay beside HAProxy's configuration, or by its whole path.
func outName(dest, dir string) string {
	if rel, ok := strings.CutPrefix(dest, strings.TrimSuffix(dir, "/")+"/"); ok {
		return rel
	}
	return strings.TrimPrefix(dest, "/")
}

func (l *Layout) check(tree map[string]string) error {
	made := map[string]*Resource{}
	for _, r := range l.Resources {
		if _, ok := tree[r.Src]; !ok {
			return r.Fault("src", "there is no template %s", r.Src)
		}
		if other := made[r.Out]; other != nil {
			return r.Fault("dest", "both this resource and %s make %s", other.File, r.Dest)
		}
		made[r.Out] = r
	}
	return nil
}

// Keys are all keys and directories that the resources for HAProxy read.
func (l *Layout) Keys() []string {
	var keys []string
	for _, r := range l.Resources {
		keys = append(keys, r.keys...)
	}
	return keys
}

// Relocate replaces the paths of the files that confd would have written by those that nuncio writes.
func (l *Layout) Relocate(text string) string {
	for _, r := range l.Resources[1:] {
		text = replacePath(text, r.Dest, r.Out)
	}
	return text
}

func replacePath(text, from, to string) string {
	var b strings.Builder
	for {
		at := strings.Index(text, from)
		if at < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := at + len(from)
		whole := (at == 0 || !inPath(text[at-1])) && (end == len(text) || !inPath(text[end]))
		b.WriteString(text[:at])
		if whole {
			b.WriteString(to)
		} else {
			b.WriteString(from)
		}
		text = text[end:]
	}
}

// Notes say, in a sentence each, what nuncio does not take over as it stands.
func (l *Layout) Notes() []string {
	var notes []string
	for _, r := range l.Resources {
		if len(r.Replaced) > 0 {
			notes = append(notes, fmt.Sprintf("%s: nuncio checks, writes and reloads in its own way, in place of %s", r.File, strings.Join(r.Replaced, ", ")))
		}
	}
	notes = append(notes, l.directories...)
	for _, r := range l.Foreign {
		notes = append(notes, fmt.Sprintf("%s: %s is not HAProxy's, so it is left to confd", r.File, r.Dest))
	}
	return notes
}
