package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"nuncio/internal/cli"
)

const (
	envPrefix   = "NUNCIO_REGISTRAR"
	description = `Registers this host's Docker containers as service records in etcd, and removes the records when the containers end.

"nuncio-registrar CONTAINER PORT SERVICE" serves one container as docker-register did: the record is
/services/SERVICE/CONTAINER. A container that has the name of a command needs "classic" in front.

Every flag may be given as an environment variable: --node is NUNCIO_REGISTRAR_NODE. A flag wins over its variable.
The etcd flags and --prefix also read nuncio's own variables, NUNCIO_ETCD_ENDPOINTS and so on. Exit codes: 0 ended as asked,
1 no such record (drain), 2 usage, 3 cannot start, 4 no answer in time or failed while running, 5 another registrar
serves this node; register exits with the code of its command.`
)

type grammar struct {
	cli.Version

	Run        runCmd         `cmd:"" help:"Register the labelled containers of this host: the daemon."`
	Classic    classicCmd     `cmd:"" default:"withargs" help:"Register one container; \"classic\" may be left out."`
	Register   registerCmd    `cmd:"" help:"Register an endpoint that is not a container, for as long as this process or its command lives."`
	Drain      drainCmd       `cmd:"" help:"Stop traffic to a container before docker stop."`
	List       listCmd        `cmd:"" help:"Show what the running daemon has registered, and what it skipped and why."`
	Completion cli.Completion `cmd:"" help:"Print a shell script that completes commands and flags."`
	VersionCmd versionCmd     `cmd:"" name:"version" help:"Show the version."`
	Man        cli.Man        `cmd:"" hidden:"" help:"Print the manual page."`
}

// streams are the program's output and environment, so that tests can run it within their process.
type streams struct {
	out, err io.Writer
	environ  []string
}

// lookup returns a variable of the environment that Main was given; empty when it is not set.
func (s *streams) lookup(name string) string {
	for _, pair := range s.environ {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// Main runs the program and returns its exit code.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	parser := cli.New(&grammar{}, "nuncio-registrar", description, envPrefix, stdout, stderr, &streams{stdout, stderr, environ},
		cli.NewVersionText("nuncio-registrar", version))
	command, shown, err := cli.Parse(parser, args)
	if shown {
		return exitOK
	}
	if err == nil {
		err = cli.UnknownVariables(parser, environ, func(name string) bool { return strings.HasPrefix(name, envPrefix+"_") })
	}
	if err != nil {
		cli.UsageError(stderr, parser, err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		if err.Error() != "" {
			fmt.Fprintf(stderr, "nuncio-registrar: %v\n", err)
		}
		return exitCode(err)
	}
	return exitOK
}

// untilSignal returns a context that ends with TERM or INT.
func untilSignal(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s *streams, text cli.VersionText) error {
	fmt.Fprintln(s.out, text)
	return nil
}
