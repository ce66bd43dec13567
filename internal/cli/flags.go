package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Log holds the flags for the log. A command that embeds it has both flags.
type Log struct {
	LogFormat string `enum:"text,json" default:"text" help:"Format of the log: text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"Lowest level that is logged: debug, info, warn or error."`
}

// Logger returns a logger as the flags ask for, writing to w.
func (f *Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	// kong has checked the word against the enum, whose words slog accepts.
	_ = level.UnmarshalText([]byte(f.LogLevel))
	opts := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Version holds the flag that shows the version and ends, as the command "version" does. A grammar embeds it, and New is bound
// to the text as VersionText.
type Version struct {
	ShowVersion versionFlag `name:"version" short:"V" env:"-" help:"Show the version."`
}

// VersionText is what --version shows.
type VersionText string

type versionFlag bool

// BeforeReset shows the version as soon as the flag is seen, whatever else the command line lacks.
func (versionFlag) BeforeReset(app *kong.Kong, text VersionText) error {
	fmt.Fprintln(app.Stdout, text)
	app.Exit(0)
	return nil
}

// NewVersionText returns a program's name and version, with the commit and the Go release that the linker has noted.
func NewVersionText(name, version string) VersionText {
	text := name + " " + version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return VersionText(text)
	}
	commit, modified := "", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			commit = ", commit " + s.Value[:min(len(s.Value), 12)]
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = " with changes"
		}
	}
	return VersionText(text + commit + modified + ", " + info.GoVersion)
}

// New returns the parser of a program. Every flag can be given as a variable: envPrefix and its name in upper snake
// case. The bound values are passed to the commands' Run, together with a context.Context. New panics if the
// annotations of grammar are invalid, a programming error that any test finds.
func New(grammar any, name, description, envPrefix string, stdout, stderr io.Writer, bound ...any) *kong.Kong {
	return kong.Must(grammar,
		kong.Name(name), kong.Description(description), kong.DefaultEnvars(envPrefix), kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(int) { panic(helpShown{}) }),
		kong.BindTo(context.Background(), (*context.Context)(nil)), kong.Bind(bound...),
	)
}

// helpShown carries kong's exit after --help back to Parse.
type helpShown struct{}

// Parse returns the command that args name. It reports whether it showed the help or the version instead; it shows the help
// without arguments, and with "help COMMAND" too, which users of git and Docker type.
func Parse(parser *kong.Kong, args []string) (command *kong.Context, shown bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(helpShown); !ok {
				panic(r)
			}
			shown = true
		}
	}()
	switch {
	case len(args) == 0:
		args = []string{"--help"}
	case args[0] == "help":
		args = append(slices.Clone(args[1:]), "--help")
	}
	command, err = parser.Parse(args)
	return command, false, err
}

// UsageError writes what is wrong with a command line, and which help shows the right one.
func UsageError(w io.Writer, parser *kong.Kong, err error) {
	name := parser.Model.Name
	help := name
	if parse := (*kong.ParseError)(nil); errors.As(err, &parse) {
		if command := parse.Context.Selected(); command != nil {
			help += " " + command.Name
		}
	}
	fmt.Fprintf(w, "%s: %v\nTry \"%s --help\".\n", name, err, help)
}

// UnknownVariables returns an error for variables that ours attributes to this program and that belong to no flag of
// any command: a misspelt one would otherwise be ignored silently.
func UnknownVariables(parser *kong.Kong, environ []string, ours func(name string) bool) error {
	known := map[string]bool{}
	var visit func(*kong.Node)
	visit = func(n *kong.Node) {
		for _, flag := range n.Flags {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
		for _, child := range n.Children {
			visit(child)
		}
	}
	visit(parser.Model.Node)
	var unknown []string
	for _, pair := range environ {
		if name, _, _ := strings.Cut(pair, "="); ours(name) && !known[name] {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	return fmt.Errorf("unknown environment variable %s: no flag has that name", strings.Join(unknown, ", "))
}
