package catalog

import (
	"errors"
	"strings"
)

// invalidError says which piece of a record breaks the contract. The piece may be a secret that stands in the wrong place,
// so the reason exists with and without it.
type invalidError struct{ what, piece, problem string }

func invalid(what, piece, problem string) error { return &invalidError{what, piece, problem} }

func (e *invalidError) Error() string { return e.what + " " + quote(e.piece) + " " + e.problem }

func (e *invalidError) reason() string { return e.what + " " + e.problem }

// quarantine describes a record that breaks the contract.
func quarantine(key string, err error, raw string) Quarantined {
	q := Quarantined{Key: key, Reason: err.Error(), Detail: err.Error(), Value: excerpt(raw)}
	if e, ok := errors.AsType[*invalidError](err); ok {
		q.Reason = e.reason()
	}
	// Whoever may see the store sees its keys there; a terminal or a CI log is a different place.
	if strings.Contains(raw, "PRIVATE KEY") {
		q.Detail, q.Value = q.Reason, "[holds a private key]"
	}
	return q
}
