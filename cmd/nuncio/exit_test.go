package main

import (
	"errors"
	"fmt"
	"testing"

	"nuncio/reload"
	"nuncio/watch"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{nil, exitOK},
		{fmt.Errorf("gave up: %w", &reload.ExitError{Code: 139}), 139},
		{fmt.Errorf("gave up: %w", &reload.ExitError{Code: 0}), exitRun},
		{fmt.Errorf("gave up: %w", &reload.ExitError{Code: -1}), exitRun},
		{&reload.SetupError{Err: errors.New("x")}, exitStart},
		{&watch.CredentialsError{Err: errors.New("x")}, exitStart},
		{cannotStart("x"), exitStart},
		{refused(errors.New("x")), exitRefused},
		{errors.New("x"), exitRun},
	} {
		if got := exitCode(c.err); got != c.code {
			t.Errorf("exitCode(%v) = %d, want %d", c.err, got, c.code)
		}
	}
}
