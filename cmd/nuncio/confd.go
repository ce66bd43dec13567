package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
	"nuncio/internal/haproxy"
	"nuncio/render"
	"nuncio/watch"
)

// confdFlags choose confd's own directory in place of nuncio's templates.
type confdFlags struct {
	Confd       string `placeholder:"DIR" help:"Directory of confd, such as /etc/confd, used as it is in place of --templates: conf.d/*.toml, templates/ and confd.toml (see docs/confd.md)."`
	ConfdPrefix string `placeholder:"PREFIX" help:"What confd's own flag -prefix says: it is taken off all keys, whatever confd.toml and the resources say."`
}

// settle fills in what depends on several flags: with --confd, everything that confd's directory says and no flag does. It
// returns what an operator has to know about it, in a sentence each.
func (f *templateFlags) settle(e *etcdFlags, s *streams) (notes []string, err error) {
	if f.Confd == "" {
		e.Prefix = cmp.Or(e.Prefix, catalog.DefaultPrefix)
		return nil, nil
	}
	if f.Templates != "" {
		return nil, &exitError{exitUsage, errors.New("--confd and --templates are two directories of templates: give only one of them")}
	}
	if f.options == nil { // check --watch comes again
		f.given = e.Keys
	}
	settings, err := f.confdSettings(s)
	if err != nil {
		return nil, refused(inDir(f.Confd, err))
	}
	e.take(settings)
	f.options = &confd.Options{Prefix: cmp.Or(f.ConfdPrefix, settings.Prefix)}
	tree, err := f.tree()
	if err != nil {
		return nil, cannotStart("%w", err)
	}
	layout, err := confd.Parse(tree, *f.options)
	if err != nil {
		return nil, refused(inDir(f.Confd, err))
	}
	e.Keys = append(slices.Clone(f.given), layout.Keys()...)
	return layout.Notes(), nil
}

// inDir puts the directory in front of the place of an error.
func inDir(dir string, err error) error { return fmt.Errorf("%s: %w", dir, err) }

func (f *templateFlags) confdSettings(s *streams) (*confd.Settings, error) {
	text, err := os.ReadFile(filepath.Join(f.Confd, confd.SettingsFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return confd.ParseSettings(string(text), s.getenv)
}

// take adopts confd's way to etcd where no flag gives another.
func (f *etcdFlags) take(c *confd.Settings) {
	plain := false // by a flag, which wins over confd's certificates too
	for _, e := range f.EtcdEndpoints {
		plain = plain || strings.HasPrefix(e, "http://")
	}
	if len(f.EtcdEndpoints) == 0 {
		f.EtcdEndpoints = c.Nodes
	}
	if !plain {
		f.EtcdCA = cmp.Or(f.EtcdCA, c.ClientCAKeys)
		if f.EtcdCert == "" && f.EtcdKey == "" {
			f.EtcdCert, f.EtcdKey = c.ClientCert, c.ClientKey
		}
	}
	if f.EtcdUser == "" {
		f.EtcdUser, f.password = c.Username, c.Password
	}
}

// tree reads the operator's templates.
func (f *templateFlags) tree() (map[string]string, error) {
	o := f.dirOptions()
	tree, err := watch.ReadDirOnly(o.Dir, o.Only)
	if err != nil && f.Confd != "" {
		return nil, fmt.Errorf("--confd: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("--templates: %w", err)
	}
	return tree, nil
}

// dirOptions name the operator's templates; Dir is empty for the shipped ones.
func (f *templateFlags) dirOptions() watch.DirOptions {
	if f.Confd != "" {
		return watch.DirOptions{Dir: f.Confd, Only: confd.Wanted}
	}
	return watch.DirOptions{Dir: f.Templates}
}

// renderOptions are what the flags say about rendering.
func (f *templateFlags) renderOptions(s *streams) render.Options {
	return render.Options{Getenv: s.getenv, Settings: f.settings(), Confd: f.options, TrustValues: f.TrustValues}
}

// asRendered makes what confd has written comparable with what nuncio renders: without the files that others put there, with
// nuncio's names for the files that haproxy.cfg names, and with the line end that confd leaves out.
func (f *renderFlags) asRendered(tree map[string]string, rendered haproxy.Files) map[string]string {
	if f.layout == nil {
		return tree
	}
	same := map[string]string{}
	for _, name := range rendered.Names() {
		text, found := tree[name]
		if !found {
			continue
		}
		if name == haproxy.ConfigFile {
			text = f.layout.Relocate(text)
		}
		if made, _ := rendered.Get(name); text+"\n" == string(made) {
			text += "\n"
		}
		same[name] = text
	}
	return same
}
