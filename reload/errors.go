package reload

import (
	"errors"

	"nuncio/reload/internal/process"
)

// ErrStopped is the error of calls that come after Run has begun to stop, or that were under way then.
var ErrStopped = errors.New("reload: stopped")

// ErrReloadNeeded is Apply's error for a Desired with NoReload that commands cannot bring about, or only a part of it; the error
// that wraps it says why. The Result is empty if HAProxy goes on as before, and else says what has changed.
var ErrReloadNeeded = errors.New("a reload is needed")

// ReloadError is Apply's error when HAProxy was reloaded with files that "haproxy -c" had passed and could not load them. HAProxy may
// have closed every listener for two seconds before it gave up, so trying the same again costs requests.
type ReloadError struct { //nolint:revive // Error alone would not say that HAProxy was reloaded
	Err error
}

func (e *ReloadError) Error() string { return "reload: " + e.Err.Error() }

// Unwrap returns the reason.
func (e *ReloadError) Unwrap() error { return e.Err }

// CheckError says why nuncio or HAProxy rejects a set of files. Trying the same set again is of use only when something
// outside it, such as a certificate, was the reason.
type CheckError = process.CheckError

// BindError says which addresses are in use. HAProxy was not reloaded.
type BindError = process.BindError

// AddressInUse is an address on which HAProxy is to listen and cannot: a plain value that StillInUse tries again.
type AddressInUse = process.AddressInUse

// ExitError is Run's error when it gives up on haproxy, or when haproxy ended a drain with an error.
type ExitError = process.ExitError

// SetupError is Run's error when it could not begin: haproxy is missing or too old, or the state directory cannot be
// used. Trying again without a change of the set-up is of no use.
type SetupError struct {
	Err error
}

func (e *SetupError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *SetupError) Unwrap() error { return e.Err }

func isCheckError(err error) bool {
	_, ok := errors.AsType[*CheckError](err)
	return ok
}
