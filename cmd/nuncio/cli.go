package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"nuncio/internal/cli"
	"nuncio/internal/etcd"
)

const description = `Keeps an HAProxy in step with the services registered in etcd.

Every flag may be given as an environment variable: --etcd-endpoints is NUNCIO_ETCD_ENDPOINTS. A flag wins over its
variable. Exit codes: 0 as asked, 1 refused, different, or not as wanted (render, check, diff, status), 2 usage, 3 cannot start, 4 failed while
running; an HAProxy that keeps dying passes its own code on.`

type grammar struct {
	Run        runCmd        `cmd:"" help:"Follow etcd and keep HAProxy in step: the entrypoint of the HAProxy container."`
	Render     renderCmd     `cmd:"" help:"Render the templates once, to a directory or to standard output."`
	Check      checkCmd      `cmd:"" help:"Render the templates once and let HAProxy check the result; for editors and CI."`
	Services   servicesCmd   `cmd:"" help:"Show the services that etcd holds, and the records that are set aside and why."`
	Status     statusCmd     `cmd:"" help:"Ask the running nuncio how things stand, or with an argument why an instance gets no traffic. Exit code 1 if HAProxy does not run what is wanted, 3 if no nuncio answers."`
	Diff       diffCmd       `cmd:"" help:"Compare what runs with what would be applied now, or two generations. Exit code 1 if they differ."`
	History    historyCmd    `cmd:"" help:"Show what was applied when, and what was refused."`
	Rollback   rollbackCmd   `cmd:"" help:"Make HAProxy run an earlier generation and keep it until resume."`
	Resume     resumeCmd     `cmd:"" help:"End a rollback: apply what is wanted now."`
	Accept     acceptCmd     `cmd:"" help:"Take what the shrink guard holds back: the instances that vanished from etcd leave HAProxy now."`
	Health     healthCmd     `cmd:"" help:"Ask the running nuncio whether it lives, or with --ready whether it serves; for HEALTHCHECK."`
	Templates  templatesCmd  `cmd:"" help:"Write the shipped templates to a directory, to be edited there."`
	Completion completionCmd `cmd:"" help:"Print the script that makes a shell complete commands and flags."`
	Version    versionCmd    `cmd:"" help:"Show the version."`
}

// etcdFlags say how to reach the store; every command that asks etcd has them.
type etcdFlags struct {
	EtcdEndpoints    []string `placeholder:"URL" help:"Where etcd listens, several separated by commas (default: http://127.0.0.1:2379)."`
	EtcdCA           string   `name:"etcd-ca" placeholder:"FILE" help:"PEM file of the certificate authority that signed etcd's certificates."`
	EtcdCert         string   `placeholder:"FILE" help:"PEM file of the client certificate; needs --etcd-key."`
	EtcdKey          string   `placeholder:"FILE" help:"PEM file of the client certificate's key."`
	EtcdUser         string   `placeholder:"NAME" help:"User name, where etcd's authentication is on; needs --etcd-password-file."`
	EtcdPasswordFile string   `placeholder:"FILE" help:"File that holds the password."`
	Prefix           string   `default:"/services/" help:"Key prefix of the records."`
	Keys             []string `placeholder:"PREFIX" help:"More key prefixes to watch, for the templates' store functions."`
}

func (f *etcdFlags) config() etcd.Config {
	endpoints := f.EtcdEndpoints
	if len(endpoints) == 0 {
		endpoints = []string{"http://127.0.0.1:2379"}
	}
	return etcd.Config{
		Endpoints: endpoints, CAFile: f.EtcdCA, CertFile: f.EtcdCert, KeyFile: f.EtcdKey,
		User: f.EtcdUser, PasswordFile: f.EtcdPasswordFile,
	}
}

// templateFlags say what is rendered.
type templateFlags struct {
	Templates string            `placeholder:"DIR" help:"Directory of the templates; the shipped ones when not given."`
	Set       map[string]string `placeholder:"NAME=VALUE" help:"Settings that the templates ask for, such as http.bind=:8080 (see docs/templates.md)."`
}

// streams are the program's own, so that tests can run it within their process.
type streams struct {
	out, err io.Writer
	environ  []string
}

// Main runs the program and returns its exit code.
func Main(args, environ []string, stdout, stderr io.Writer) int {
	return (&grammar{}).main(args, environ, stdout, stderr)
}

func (c *grammar) main(args, environ []string, stdout, stderr io.Writer) int {
	parser := cli.New(c, "nuncio", description, "NUNCIO", stdout, stderr, &streams{stdout, stderr, environ})
	command, shown, err := cli.Parse(parser, args)
	if shown {
		return exitOK
	}
	if err == nil {
		err = cli.UnknownVariables(parser, environ, ours)
	}
	if err != nil {
		fmt.Fprintf(stderr, "nuncio: %v\nTry \"nuncio --help\".\n", err)
		return exitUsage
	}
	if err := command.Run(); err != nil {
		// What differs or needs attention stands on standard output.
		if !errors.Is(err, errDiffers) && !errors.Is(err, errNotRunning) {
			fmt.Fprintf(stderr, "nuncio: %v\n", err)
		}
		return exitCode(err)
	}
	return exitOK
}

// ours tells this program's variables from the registrar's and the tests'.
func ours(name string) bool {
	return strings.HasPrefix(name, "NUNCIO_") && !strings.HasPrefix(name, "NUNCIO_REGISTRAR_") && !strings.HasPrefix(name, "NUNCIO_TEST_")
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s *streams) error {
	fmt.Fprintln(s.out, "nuncio", version)
	return nil
}

// oneShot bounds a command that asks etcd once: an operator at a terminal wants an answer, not a daemon.
const oneShot = 10 * time.Second

func getenv(name string) (string, bool) { return os.LookupEnv(name) }
