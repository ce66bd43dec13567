package main

import (
	"errors"
	"fmt"

	"nuncio/reload"
	"nuncio/watch"
)

// The exit codes of nuncio. README.md has the same table, and a test compares the two.
const (
	exitOK      = 0 // ended as asked
	exitRefused = 1 // templates, configuration or a command rejected; render --diff and diff found a difference; status: not as desired
	exitUsage   = 2 // unknown or unusable flags, arguments or environment variables
	exitStart   = 3 // cannot start, or no running nuncio answers: HAProxy, templates, credentials, state directory or a listener is unusable
	exitRun     = 4 // failed while running, for a reason other than HAProxy
)

// exitError carries the exit code of an error that ends the program.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func cannotStart(format string, args ...any) error {
	return &exitError{exitStart, fmt.Errorf(format, args...)}
}

func refused(err error) error { return &exitError{exitRefused, err} }

// exitCode returns the code for an error. If HAProxy kept dying, it is HAProxy's own code, unless that is 0, as after a
// signal to its worker: a container that restarts on failure must restart then too.
func exitCode(err error) int {
	var haproxy *reload.ExitError
	var setUp *reload.SetupError
	var credentials *watch.CredentialsError
	var own *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &haproxy) && haproxy.Code > 0:
		return haproxy.Code
	case errors.As(err, &setUp), errors.As(err, &credentials):
		return exitStart
	case errors.As(err, &own):
		return own.code
	default:
		return exitRun
	}
}
