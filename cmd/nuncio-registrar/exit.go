package main

import (
	"errors"
	"fmt"

	"nuncio/register"
)

// The exit codes of nuncio-registrar. docs/registrar.md has the same table, and a test compares the two.
const (
	exitOK       = 0 // ended as asked, also by TERM or INT
	exitNoRecord = 1 // drain: this node has no such record
	exitUsage    = 2 // unknown or invalid flags, arguments or environment variables
	exitStart    = 3 // cannot start: certificates, password file or listener cannot be used, or the command of register cannot be run
	exitRun      = 4 // no answer in time (drain, list, --once, --dry-run), or failed while running
	exitClaimed  = 5 // another registrar serves this node, or this record
)

// exitError carries the exit code of an error that ends the program. Without an error nothing is printed: register
// exits with the code of its command.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func cannotStart(format string, args ...any) error {
	return &exitError{exitStart, fmt.Errorf(format, args...)}
}

func exitCode(err error) int {
	var own *exitError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, register.ErrClaimed):
		return exitClaimed
	case errors.Is(err, register.ErrNoRecord):
		return exitNoRecord
	case errors.As(err, &own):
		return own.code
	default:
		return exitRun
	}
}
