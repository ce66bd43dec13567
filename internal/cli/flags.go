package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Log says what is logged and how; embedded in a command it gives it both flags.
type Log struct {
	LogFormat string `enum:"text,json" default:"text" help:"Form of the log: text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"Least level that is logged: debug, info, warn or error."`
}

// Logger is the logger that the flags ask for, writing to w.
func (f *Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	// kong has checked the word against the enum, which are slog's own.
	_ = level.UnmarshalText([]byte(f.LogLevel))
	opts := &slog.HandlerOptions{Level: level}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// New makes the parser of a program. Every flag may be given as a variable, envPrefix and its name in upper snake. What
// is bound is handed to the commands' Run, together with a context.Context. It panics where the annotations of
// grammar are wrong: a programming error that any test meets.
func New(grammar any, name, description, envPrefix string, stdout, stderr io.Writer, bound ...any) *kong.Kong {
	return kong.Must(grammar,
		kong.Name(name), kong.Description(description), kong.DefaultEnvars(envPrefix), kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Exit(func(int) { panic(helpShown{}) }),
		kong.BindTo(context.Background(), (*context.Context)(nil)), kong.Bind(bound...),
	)
}

// helpShown is how kong's "exit after --help" comes back to Parse.
type helpShown struct{}

// Parse finds the command that args name. It tells when the help was shown instead, as it is without any argument.
func Parse(parser *kong.Kong, args []string) (command *kong.Context, shown bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(helpShown); !ok {
				panic(r)
			}
			shown = true
		}
	}()
	if len(args) == 0 {
		args = []string{"--help"}
	}
	command, err = parser.Parse(args)
	return command, false, err
}

// UnknownVariables refuses variables that no flag of any command knows, among those of which ours says that they are
// this program's: a misspelt one would otherwise be ignored in silence.
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
