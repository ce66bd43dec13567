// Package reconcile decides which files HAProxy should run, from the newest snapshot of the store, from templates that are
// proven to work and from the operator's orders, and has them applied. It owns the one retry policy (retry.go).
//
// It promises that new templates replace those in use only after HAProxy has run what they render; that meanwhile, and
// whatever is wrong with them (a syntax error, a line that "haproxy -c" rejects, an address in use), the last good set
// follows every change of services; that a record which asks for a port in use blocks only itself; that a store which
// suddenly has far less than before does not empty HAProxy (shrinkguard.go); that each distinct error is logged once; and
// that an operator can go back to any earlier template set that is kept while records are followed, or freeze what runs.
//
// It does not know how anything is watched, rendered or applied.
//
//	r, err := reconcile.New(reconcile.Options{Applier: manager, Render: render.Options{}})
//	err = r.Run(ctx, snapshots, trees)
package reconcile
