package reload

import (
	"errors"
	"fmt"
)

// ErrStopped is the error of calls that come after Run has begun to stop, or that were under way then.
var ErrStopped = errors.New("reload: stopped")

// ErrReloadNeeded is Apply's error for a Desired with NoReload that commands cannot bring about. The error that wraps it
// says why. HAProxy goes on as before.
var ErrReloadNeeded = errors.New("a reload is needed")

// ReloadError is Apply's error when HAProxy was told to load files that "haproxy -c" had passed, and did not. HAProxy may
// have closed every listener for two seconds before it gave up, so trying the same again costs requests.
type ReloadError struct {
	Err error
}

func (e *ReloadError) Error() string { return "reload: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ReloadError) Unwrap() error { return e.Err }

// ExitError is Run's error when it gives up on haproxy, or when haproxy ended a drain with an error.
type ExitError struct {
	Code    int    // haproxy's own exit code, 128+n after signal n
	Message string // the end of haproxy's output
}

func (e *ExitError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("haproxy ended with exit code %d", e.Code)
	}
	return fmt.Sprintf("haproxy ended with exit code %d: %s", e.Code, e.Message)
}

// SetupError is Run's error when it could not begin: haproxy is missing or too old, or the state directory cannot be
// used. Trying again without a change of the set-up is of no use.
type SetupError struct {
	Err error
}

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *SetupError) Unwrap() error { return e.Err }
