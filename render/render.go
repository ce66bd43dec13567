package render

import (
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"text/template"

	"nuncio/internal/catalog"
	"nuncio/internal/confd"
	"nuncio/internal/haproxy"
)

// Limits that protect the process from a faulty template.
const (
	maxOutputBytes = 64 << 20  // of all files together
	maxDepth       = 200       // of templates within templates
	maxTurns       = 2_000_000 // of loops
	maxList        = 1_000_000 // elements in the result of a function
	maxText        = maxOutputBytes
)

// Options holds what a rendering depends on besides templates and store. The zero value is an empty environment and no
// settings.
type Options struct {
	// Getenv is read by the template function env. Nil means an empty environment.
	Getenv func(name string) (string, bool)
	// Settings is read by the template function setting.
	Settings map[string]string
	// Confd says that the tree is confd's directory: its resources name the templates, and templates see the keys of
	// their resource only, as confd shows them.
	Confd *confd.Options
	// TrustValues prints every value as it is: who writes to the store then writes the configuration.
	TrustValues bool
	// Survey fills Result.Untrusted, and leaves lines with refused values out in place of an error.
	Survey bool
	// Private is a directory whose sockets no value may name.
	Private string
	// Origins fills Result.Origins. It makes rendering slower.
	Origins bool
}

// Templates is a parsed tree of templates. It is safe for concurrent use; renderings run one at a time.
type Templates struct {
	tree     map[string]string
	settings settingNames
	where    []position // place of each numbered action and text
	// actions has what else is known of each numbered action.
	actions map[int]action
	// environment has the values of variables that templates have read.
	environment map[string]bool

	sources []source
	confd   *confd.Layout // with Options.Confd

	mu        sync.Mutex // held by Render; template functions run only while it is held
	set       *template.Template
	run       *run
	memo      map[memoKey]*memoEntry
	byPartial map[eachKey]*eachMemo
	newest    map[namedMemo]*memoEntry // of each service
	bodies    int                      // kept in newest
	opts      Options
	loopLimit int // turns of all loops of a rendering

	summaries summarizer
	patterns  map[string]*regexp.Regexp
}

// Result is the result of a rendering.
type Result struct {
	Files haproxy.Files
	// Dropped has the lines that were dropped because of a value, sorted by file and line.
	Dropped []Dropped
	// Unmet has the wishes of services that the templates do not fulfil, sorted by service and key.
	Unmet []Unmet
	// Untrusted has the actions that need a change to print what confd prints; only with Options.Survey.
	Untrusted []Untrusted
	// Outside has the questions that no key of a resource of confd covers, in a sentence each.
	Outside []string
	// Origins has the origin of each line of each file; only with Options.Origins.
	Origins map[string][]Origin
}

// New parses a tree of files by their slash-separated relative names. A name ending in .tmpl is a template; other files
// are copied unchanged; a file whose base name begins with "_" makes no output. An error is always an *Error.
func New(tree map[string]string, opts Options) (*Templates, error) {
	t := &Templates{tree: maps.Clone(tree), memo: make(map[memoKey]*memoEntry), byPartial: make(map[eachKey]*eachMemo), newest: make(map[namedMemo]*memoEntry), patterns: make(map[string]*regexp.Regexp), environment: make(map[string]bool), opts: opts, loopLimit: maxTurns}
	t.opts.Settings = maps.Clone(opts.Settings)
	funcs := t.functions()
	c := &compiler{tree: t.tree, funcs: funcs, defined: make(map[string]string), actions: make(map[int]action), origins: opts.Origins, scoped: opts.Confd != nil}
	c.set = template.New("").Option("missingkey=zero").Funcs(funcs)
	sources, parse, err := t.lay()
	if err != nil {
		return nil, err
	}
	for _, name := range parse {
		if err := c.add(name); err != nil {
			return nil, explain(t.tree, name, err)
		}
	}
	for _, src := range sources {
		if _, err := haproxy.FilesOf(map[string]haproxy.Text{src.out: {}}); err != nil {
			return nil, &Error{File: src.name, Message: err.Error()}
		}
	}
	if err := c.resolve(); err != nil {
		return nil, explain(t.tree, "", err)
	}
	t.set, t.where, t.actions, t.sources, t.settings = c.set, c.where, c.actions, sources, c.asked
	return t, nil
}

// Render returns the files for a snapshot where none run yet. An error is always an *Error.
func (t *Templates) Render(snap *catalog.Snapshot) (*Result, error) {
	return t.RenderAfter(snap, haproxy.Files{})
}

// RenderAfter returns the files for a snapshot, to replace those that run: where two services want the same, the template
// function incumbent tells which one has it. An error is always an *Error.
func (t *Templates) RenderAfter(snap *catalog.Snapshot, running haproxy.Files) (*Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.run = &run{snap: snap, running: running, stores: map[*confd.Resource]*store{}, loopBudget: t.loopLimit}
	defer func() { t.run = nil }()
	defer t.forget()
	texts := make(map[string]haproxy.Text)
	result := &Result{}
	if t.opts.Origins {
		result.Origins = make(map[string][]Origin)
	}
	for _, src := range t.sources {
		made, err := t.file(src)
		if err != nil {
			return nil, explain(t.tree, src.name, err)
		}
		texts[src.out] = made.text
		result.Dropped = append(result.Dropped, made.dropped...)
		result.Unmet = append(result.Unmet, made.unmet...)
		if t.opts.Origins {
			result.Origins[src.out] = t.originsOf(src, made)
		}
	}
	var err error
	if result.Files, err = haproxy.FilesOf(texts); err != nil {
		return nil, &Error{File: haproxy.ConfigFile + ".tmpl", Message: err.Error()}
	}
	sortDropped(result.Dropped)
	nameEmptied(texts[haproxy.ConfigFile], result.Dropped)
	result.Unmet, result.Untrusted, result.Outside = eachOnce(result.Unmet), t.run.untrusted, t.run.outside
	return result, nil
}

// run is the state of one rendering.
type run struct {
	snap      *catalog.Snapshot
	running   haproxy.Files
	stores    map[*confd.Resource]*store // created by the first store function of each; nil is the key outside confd
	source    source                     // being rendered
	file      string                     // being rendered
	kind      fileKind
	memos     []memoCall
	printed   []printed   // values printed into the file
	untrusted []Untrusted // so far
	outside   []string    // so far
	unmet     []Unmet     // wishes that the file's templates do not fulfil

	incumbents map[string]map[string]string // rows of running maps, by file

	inMemo     string           // name of the partial that memo renders
	memoOfAll  bool             // for all summaries, not for one service
	known      map[bodyKey]body // by the text before of the service that memo renders
	bodies     map[bodyKey]body // by this one; nil: not kept
	depth      int
	loopBudget int // turns of loops that are left
	bytes      int
}

// printed is a value that an action printed.
type printed struct {
	value  string
	action int  // the number of the action
	format bool // the function logformat was applied

	options bool   // the function options was applied
	refused string // why it may stand in comments only; empty if it is no such value
}

func (t *Templates) file(src source) (escaped, error) {
	if !src.isTemplate {
		return escaped{text: haproxy.NewText(t.tree[src.name])}, nil
	}
	r := t.run
	r.source, r.file, r.kind, r.printed, r.memos, r.depth, r.inMemo = src, src.out, kindOf(src.out), nil, nil, 0, ""
	r.unmet = nil
	text, err := t.execute(src.name, root{Services: r.snap.Services, Summaries: t.summaries.of(r.snap.Services)})
	if err != nil {
		return escaped{}, err
	}
	e := t.escaper()
	e.memos, e.made.unmet = r.memos, r.unmet
	made, err := e.escape(text)
	if err == nil && t.confd != nil && r.kind == configKind {
		made.text = haproxy.NewText(t.confd.Relocate(made.text.String()))
	}
	return made, err
}

// root is the data of every template that makes a file.
type root struct {
	Services  []*catalog.Service
	Summaries []*ServiceSummary
}

// execute runs a template and returns its text with marked values. A panic in a template function becomes an error.
func (t *Templates) execute(name string, data any) (text string, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	tmpl := t.set.Lookup(name)
	if tmpl == nil {
		return "", fmt.Errorf("there is no template %q", name)
	}
	w := limitedWriter{run: t.run}
	if err := tmpl.Execute(&w, data); err != nil {
		return "", err
	}
	return w.String(), nil
}

var errTooLarge = fmt.Errorf("the output is larger than %d MiB: does a loop not end?", maxOutputBytes>>20)

// limitedWriter collects output until the whole rendering exceeds the limit.
type limitedWriter struct {
	strings.Builder
	run *run
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if err := w.run.grow(len(p)); err != nil {
		return 0, err
	}
	return w.Builder.Write(p)
}

func (w *limitedWriter) WriteString(s string) (int, error) {
	if err := w.run.grow(len(s)); err != nil {
		return 0, err
	}
	return w.Builder.WriteString(s)
}

func (r *run) grow(n int) error {
	r.bytes += n
	if r.bytes > maxOutputBytes {
		return errTooLarge
	}
	return nil
}

func (r *run) enterTemplate(at position) (void, error) {
	r.depth++
	if r.depth > maxDepth {
		return void{}, &fault{at, fmt.Sprintf("templates are nested more than %d deep: does one include itself?", maxDepth)}
	}
	return void{}, nil
}

func (r *run) countTurn(at position) (void, error) {
	if r.loopBudget--; r.loopBudget < 0 {
		return void{}, &fault{at, "the loops of the templates take too many turns: does this one count to a huge number?"}
	}
	return void{}, nil
}
