// Package reconcile joins watching, rendering and applying: it decides which files are wanted, from the newest
// snapshot of the store and from templates that are proven to work.
//
// It promises that a set of templates becomes the one in use only after HAProxy has run what it renders; that
// until then, and whatever is wrong with the new set (a syntax error, a line that "haproxy -c" refuses, an address
// that is taken), every change of services is still applied with the last good set; that the new set is tried again
// at the next change and, where time may heal, on a timer; and that each distinct error is logged once.
// It promises too that a store which suddenly has far less than before, because it was wiped or because a host cannot
// reach it, does not empty HAProxy: what vanished is kept for a bounded time, beside all that the store says.
//
// It refuses to know how anything is watched, rendered or applied.
//
//	f := reconcile.New(reconcile.Options{Applier: manager, Render: render.Options{}})
//	err := f.Run(ctx, snapshots, trees)
package reconcile
