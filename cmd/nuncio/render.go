package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"nuncio/internal/catalog"
	"nuncio/internal/certs"
	"nuncio/internal/confd"
	"nuncio/internal/haproxy"
	"nuncio/reconcile"
	"nuncio/reload"
	"nuncio/render"
	"nuncio/status"
	"nuncio/templates"
	"nuncio/watch"
)

// errDiffers is the error of --diff if there is a difference, which has been printed already.
var errDiffers = errors.New("the rendered files differ")

// renderFlags are the flags that render and check share: where records and templates come from.
type renderFlags struct {
	templateFlags
	etcdFlags
	Records string `placeholder:"FILE" help:"Read the records from a JSON or YAML file (- for standard input) instead of etcd: a map from key to record."`

	layout *confd.Layout     // with --confd
	snap   *catalog.Snapshot // that was rendered last
}

// render renders once. It reports quarantined records and dropped lines on standard error, so that the output stays clean.
//
// running has the files that run, where they are known: a route stays with the service that has it.
func (f *renderFlags) render(ctx context.Context, s *streams, running haproxy.Files, change ...func(*render.Options)) (*render.Result, error) {
	notes, err := f.settle(&f.etcdFlags, s)
	if err != nil {
		return nil, err
	}
	if f.layout == nil { // check --watch comes again
		for _, note := range notes {
			fmt.Fprintf(s.err, "nuncio: %s\n", note)
		}
	}
	if f.TrustValues {
		fmt.Fprintln(s.err, "nuncio: --trust-values: values from etcd are printed as they are, so whoever writes to etcd writes HAProxy's configuration")
	}
	parsed, err := f.parsedTemplates(s, change...)
	if err != nil {
		return nil, err
	}
	f.layout = parsed.Layout()
	var snap *catalog.Snapshot
	if f.Records != "" {
		snap, err = f.readRecords(s)
	} else {
		stop := showWaiting(s, "waiting for etcd")
		snap, err = f.snapshot(ctx)
		stop()
	}
	if err != nil {
		return nil, err
	}
	f.snap = snap
	for _, q := range snap.Quarantined {
		fmt.Fprintf(s.err, "nuncio: record %s is quarantined: %s\n", q.Key, q.Detail)
	}
	result, err := parsed.RenderAfter(snap, running)
	if err != nil {
		return nil, refused(err)
	}
	for _, r := range result.Dropped {
		fmt.Fprintf(s.err, "nuncio: %s\n", r)
	}
	for _, note := range result.Outside {
		fmt.Fprintf(s.err, "nuncio: %s\n", note)
	}
	for _, u := range result.Unmet {
		fmt.Fprintf(s.err, "nuncio: not met: %s\n", u)
	}
	return result, nil
}

type renderCmd struct {
	renderFlags
	Out      string `default:"-" help:"Directory for the files; - writes haproxy.cfg to standard output."`
	Diff     bool   `help:"Write nothing, but show the difference from what runs (--state-dir) or from the files in --against. Exit code 1 if there is one."`
	Annotate bool   `help:"Write nothing, but show haproxy.cfg with the template line that each line comes from."`
	Against  string `placeholder:"DIR" help:"With --diff: compare with the files in this directory."`
	StateDir string `default:"/var/lib/nuncio" help:"With --diff: state directory of the running nuncio."`
}

// Run renders and writes, or compares.
func (c *renderCmd) Run(ctx context.Context, s *streams) error {
	var running haproxy.Files
	if c.Diff && c.Against == "" {
		running, _ = reload.Current(c.StateDir) // compare reports an error
	}
	result, err := c.render(ctx, s, running, func(o *render.Options) { o.Origins = c.Annotate })
	if err != nil {
		return err
	}
	return cmp.Or(c.write(s, result), errorOfDropped(result))
}

func (c *renderCmd) write(s *streams, result *render.Result) error {
	files := result.Files
	switch {
	case c.Annotate:
		return annotate(files.Config(), result.Origins[haproxy.ConfigFile], s.out)
	case c.Diff:
		return c.compare(files, s)
	case c.Out == "-":
		_, err := s.out.Write(files.Config())
		return err
	default:
		return writeFiles(c.Out, files, c.modes(), s.out)
	}
}

// errorOfDropped is nil if no line was dropped. What is left may be valid, but it is not what the templates say.
func errorOfDropped(result *render.Result) error {
	n := len(result.Dropped)
	if n == 0 {
		return nil
	}
	text := plural(n, "line was", "lines were") + " dropped, see above"
	if emptied := render.Emptied(result.Dropped); len(emptied) > 0 {
		text += "; no server is left in " + strings.Join(emptied, ", ")
	}
	return refused(errors.New(text + ": correct the values or the templates"))
}

// annotate writes a text with the origin of each line in front of it.
func annotate(text []byte, origins []render.Origin, w io.Writer) error {
	places, width := make([]string, len(origins)), 0
	for i, o := range origins {
		if o != (render.Origin{}) {
			places[i] = fmt.Sprintf("%s:%d", o.Template, o.Line)
		}
		width = max(width, len(places[i]))
	}
	i := 0
	for line := range bytes.Lines(text) {
		if _, err := fmt.Fprintf(w, "%-*s | %s", width, places[i], line); err != nil {
			return err
		}
		i++
	}
	return nil
}

func (c *renderCmd) compare(files haproxy.Files, s *streams) error {
	name := cmp.Or(c.Against, status.NameRunning)
	var old haproxy.Files
	var err error
	if c.Against != "" {
		var tree map[string]string
		if tree, err = watch.ReadDir(c.Against); err == nil {
			old, err = filesOf(c.asRendered(tree, files))
		}
	} else {
		old, err = reload.Current(c.StateDir)
		files = reconcile.WithCopiesOf(files, old)
	}
	if err != nil {
		return cannotStart("%w", err)
	}
	if files.Equal(old) {
		return nil
	}
	printDiff(s.out, s.paint(), status.Compare(name, "rendered", old, files))
	return refused(errDiffers)
}

func filesOf(tree map[string]string) (haproxy.Files, error) {
	texts := make(map[string]haproxy.Text, len(tree))
	for name, text := range tree {
		texts[name] = haproxy.NewText(text)
	}
	return haproxy.FilesOf(texts)
}

// modes are those that confd's resources give to their files.
func (f *renderFlags) modes() map[string]fs.FileMode {
	modes := map[string]fs.FileMode{}
	if f.layout != nil {
		for _, r := range f.layout.Resources {
			modes[r.Out] = r.Mode
		}
	}
	return modes
}

func writeFiles(dir string, files haproxy.Files, modes map[string]fs.FileMode, w io.Writer) error {
	for _, name := range files.Names() {
		content, _ := files.Get(name)
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return cannotStart("write rendered files: %w", err)
		}
		mode := cmp.Or(modes[name], 0o644)
		if certs.HoldsKey(string(content)) {
			mode &= 0o600
		}
		if err := renameio.WriteFile(path, content, mode); err != nil {
			return cannotStart("write rendered files: %w", err)
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

type checkCmd struct {
	renderFlags
	HAProxy   string        `name:"haproxy" default:"haproxy" help:"HAProxy program that checks the result."`
	Timeout   time.Duration `default:"30s" help:"How long the check may take."`
	Untrusted bool          `help:"List the places of the templates that need raw, words, options or another edit to print what --trust-values prints, with what to write. Exit code 1 if there are any."`
	Watch     bool          `help:"Until Ctrl-C, check again whenever a template or the file of records is saved, and show the difference or the error."`
}

// Run renders and lets HAProxy check the result.
func (c *checkCmd) Run(ctx context.Context, s *streams) error {
	switch {
	case c.Watch && c.Untrusted:
		return &exitError{exitUsage, errors.New("--watch and --untrusted are two checks: give only one of them")}
	case c.Watch:
		return c.watch(ctx, s)
	case c.Untrusted:
		return c.listUntrusted(ctx, s)
	}
	result, err := c.check(ctx, s)
	if err != nil {
		return err
	}
	c.accepted(s, result.Files)
	if err := c.fixed(ctx, s, result.Files); err != nil {
		return err
	}
	return errorOfDropped(result)
}

// fixed names the backends that need a reload to come or go, where HAProxy could do without.
func (c *checkCmd) fixed(ctx context.Context, s *streams, files haproxy.Files) error {
	fixed, err := reload.FixedBackends(ctx, c.HAProxy, files)
	if err != nil {
		return cannotStart("%w", err)
	}
	for _, f := range fixed {
		names := f.Backends
		if more := len(names) - 3; more > 0 {
			names = append(slices.Clone(names[:3]), fmt.Sprintf("%d more", more))
		}
		fmt.Fprintf(s.out, "A reload is needed when %s comes or goes: %s.\n", strings.Join(names, ", "), f.Reason)
	}
	return nil
}

func (c *checkCmd) check(ctx context.Context, s *streams) (*render.Result, error) {
	result, err := c.render(ctx, s, haproxy.Files{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	stop := showWaiting(s, "waiting for HAProxy")
	defer stop()
	err = reload.Check(ctx, c.HAProxy, result.Files)
	if verdict := (*reload.CheckError)(nil); errors.As(err, &verdict) {
		return nil, refused(err)
	}
	if err != nil {
		return nil, cannotStart("%w", err)
	}
	return result, nil
}

// listUntrusted says what stands between these templates and a configuration that values cannot change.
func (c *checkCmd) listUntrusted(ctx context.Context, s *streams) error {
	c.TrustValues = false
	result, err := c.render(ctx, s, haproxy.Files{}, func(o *render.Options) { o.Survey = true })
	if err != nil {
		return err
	}
	for _, place := range result.Untrusted {
		fmt.Fprintln(s.out, sanitize(place.String()))
	}
	if n := len(result.Untrusted); n > 0 {
		return refused(fmt.Errorf("%s of the templates would print something else than confd", plural(n, "place", "places")))
	}
	fmt.Fprintln(s.out, "No place of the templates needs --trust-values.")
	return nil
}

func (c *checkCmd) accepted(s *streams, files haproxy.Files) {
	fmt.Fprintf(s.out, "HAProxy accepts the configuration: %s, %d bytes of %s.\n", plural(len(files.Names()), "file", "files"), len(files.Config()), haproxy.ConfigFile)
}

type templatesCmd struct {
	Dir string `arg:"" placeholder:"DIR" help:"Directory to write to; created if missing. Existing files are not changed."`
}

// Run writes the shipped templates. It never overwrites a file.
func (c *templatesCmd) Run(s *streams) error {
	files, err := filesOf(templates.Shipped())
	if err != nil {
		return err
	}
	for _, name := range files.Names() {
		path := filepath.Join(c.Dir, filepath.FromSlash(name))
		if _, err := os.Lstat(path); err == nil {
			return refused(fmt.Errorf("%s exists: wrote nothing, so that no edit is lost; choose a different directory", path))
		}
	}
	return writeFiles(c.Dir, files, nil, s.out)
}
