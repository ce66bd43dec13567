package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"nuncio/internal/catalog"
	"nuncio/internal/cli"
	"nuncio/internal/confd"
	"nuncio/internal/etcd"
)

const description = `Keeps an HAProxy in step with the services registered in etcd.

Every flag may be given as an environment variable: --etcd-endpoints is NUNCIO_ETCD_ENDPOINTS. A flag wins over its
variable. Exit codes: 0 as asked, 1 refused, different, dropped, not found or not as desired, 2 usage, 3 cannot start,
4 failed while running; an HAProxy that keeps dying passes its own code on.`

type grammar struct {
	cli.Version

	Run        runCmd         `cmd:"" help:"Follow etcd and update HAProxy: the entrypoint of the HAProxy container."`
	Render     renderCmd      `cmd:"" help:"Render the templates once, to a directory or to standard output."`
	Check      checkCmd       `cmd:"" help:"Render the templates once and check the result with HAProxy; for editors and CI."`
	Services   servicesCmd    `cmd:"" help:"Show the services in etcd, and the quarantined records with the reasons."`
	Explain    explainCmd     `cmd:"" help:"Show what one service asks for, from which record, what is not met and why, and the lines of the files that it made."`
	Status     statusCmd      `cmd:"" help:"Show the state of the running nuncio, or with an argument why an instance gets no traffic. Exit code 1 if HAProxy does not run what is desired, 3 if no nuncio answers."`
	Certs      certsCmd       `cmd:"" help:"Show the certificates that HAProxy serves: names, issuer, expiry and where they come from. Exit code 1 if one has expired or its newest content cannot be used."`
	Diff       diffCmd        `cmd:"" help:"Compare what runs with what is desired, or two generations. Exit code 1 if they differ."`
	History    historyCmd     `cmd:"" help:"Show what was applied when, and what failed."`
	Rollback   rollbackCmd    `cmd:"" help:"Go back to an earlier template set and follow records with it, until resume."`
	Freeze     freezeCmd      `cmd:"" help:"Keep exactly what HAProxy runs, or a generation, and follow nothing until resume."`
	Resume     resumeCmd      `cmd:"" help:"End a rollback or a freeze: apply the newest templates and records."`
	Accept     acceptCmd      `cmd:"" help:"End the hold of the shrink guard: remove the instances that vanished from etcd from HAProxy now."`
	Upgrade    upgradeCmd     `cmd:"" help:"Make the running nuncio execute the program that is on disk now, in place. HAProxy serves on."`
	Stop       stopCmd        `cmd:"" help:"Drain and end the HAProxy that a killed nuncio has left running. A running nuncio is ended with TERM."`
	Health     healthCmd      `cmd:"" help:"Check that the running nuncio is alive, or with --ready that it serves; for HEALTHCHECK."`
	Templates  templatesCmd   `cmd:"" help:"Write the shipped templates to a directory for you to edit."`
	Completion cli.Completion `cmd:"" help:"Print a shell script that completes commands and flags."`
	VersionCmd versionCmd     `cmd:"" name:"version" help:"Show the version."`
	Man        cli.Man        `cmd:"" hidden:"" help:"Print the manual page."`
}

// etcdFlags are the flags of every command that reads etcd: how to reach the store.
type etcdFlags struct {
	EtcdEndpoints    []string         `placeholder:"URL" help:"Endpoints of etcd, separated by commas (default: http://127.0.0.1:2379)."`
	EtcdCA           string           `name:"etcd-ca" placeholder:"FILE" help:"PEM file of the certificate authority that signed etcd's certificates."`
	EtcdCert         string           `placeholder:"FILE" help:"PEM file of the client certificate; needs --etcd-key."`
	EtcdKey          string           `placeholder:"FILE" help:"PEM file of the client certificate's key."`
	EtcdUser         string           `placeholder:"NAME" help:"User name, if etcd's authentication is on; needs --etcd-password-file."`
	EtcdPasswordFile string           `placeholder:"FILE" help:"File that contains the password."`
	Prefix           string           `placeholder:"PREFIX" help:"Prefix of the records' keys (default: /services/; with --confd nothing is a record unless it is given)."`
	Keys             []string         `placeholder:"PREFIX" help:"Further keys and directories of keys to watch, for the store functions of templates."`
	Select           catalog.Selector `placeholder:"EXPR" help:"Use only the records that match, by tag, meta or service name: tag=edge,meta.zone=a,name=web-*,tag!=canary (a comma means and, * any text). Other records count for no limit and for no guard."`

	password string // from confd.toml
}

func (f *etcdFlags) config() etcd.Config {
	endpoints := f.EtcdEndpoints
	if len(endpoints) == 0 {
		endpoints = []string{"http://127.0.0.1:2379"}
	}
	return etcd.Config{
		Endpoints: endpoints, CAFile: f.EtcdCA, CertFile: f.EtcdCert, KeyFile: f.EtcdKey,
		User: f.EtcdUser, PasswordFile: f.EtcdPasswordFile, Password: f.password,
	}
}

// templateFlags are the flags that choose what is rendered.
type templateFlags struct {
	Templates string            `placeholder:"DIR" help:"Directory of the templates (default: the shipped ones)."`
	Set       map[string]string `placeholder:"NAME=VALUE" help:"Settings for the templates, such as http.bind=:8080 (see docs/templates.md)."`
	confdFlags
	TrustValues bool `help:"Print values from etcd as they are, without escaping, as confd does: whoever writes to etcd then writes HAProxy's configuration. For the time of a move only; nuncio check --untrusted lists what to change."`

	options *confd.Options // nil without --confd
	given   []string       // --keys beside it
}

// streams are the program's standard streams; tests that run it in their own process pass theirs.
type streams struct {
	in       io.Reader
	out, err io.Writer
	args     []string
	environ  []string
}

// getenv looks a variable up in the program's environment.
func (s *streams) getenv(name string) (value string, found bool) {
	for _, pair := range s.environ {
		if have, text, _ := strings.Cut(pair, "="); have == name {
			value, found = text, true
		}
	}
	return value, found
}

// Main runs the program and returns its exit code.
func Main(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return (&grammar{}).main(args, environ, stdin, stdout, stderr)
}

func (c *grammar) main(args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := &streams{stdin, stdout, stderr, args, environ}
	parser := cli.New(c, "nuncio", description, "NUNCIO", stdout, stderr, s, cli.NewVersionText("nuncio", version))
	command, shown, err := cli.Parse(parser, args)
	if shown {
		return exitOK
	}
	if err == nil {
		err = cli.UnknownVariables(parser, environ, ours)
	}
	if err != nil {
		cli.UsageError(stderr, parser, err)
		return exitUsage
	}
	err = command.Run()
	if next, ok := errors.AsType[*successor](err); ok {
		err = replaceSelf(next, s)
	}
	if err != nil {
		// The difference, or what needs attention, is on standard output.
		if !errors.Is(err, errDiffers) && !errors.Is(err, errNotRunning) {
			fmt.Fprintf(stderr, "nuncio: %v\n", err)
		}
		return exitCode(err)
	}
	return exitOK
}

// ours reports whether a variable is this program's, and not the registrar's or the tests'.
func ours(name string) bool {
	return strings.HasPrefix(name, "NUNCIO_") && !strings.HasPrefix(name, "NUNCIO_REGISTRAR_") && !strings.HasPrefix(name, "NUNCIO_TEST_")
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s *streams, text cli.VersionText) error {
	fmt.Fprintln(s.out, text)
	return nil
}

// oneShot limits a command that reads etcd once: an operator at a terminal expects an answer, not a daemon.
const oneShot = 10 * time.Second
