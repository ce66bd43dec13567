// Package certfiles makes a rendered set of files complete: it adds copies of the certificates that the configuration names
// outside of the set, and puts what HAProxy served last in the place of one that it could not serve.
//
// It promises that one bad certificate stops nothing else. A file whose key does not fit, that is cut off, empty, gone or has
// expired keeps its last good content; one that never had any is left out where the configuration names its directory or a
// crt-list, and only where it is named itself HAProxy gets to see it and rejects the set. It judges nothing that it does not
// understand: HAProxy does, and Refuse notes its verdict.
//
//	set := keeper.Complete(rendered.Files, lastGood)
//	result, err := apply(set.Files)
//	if keeper.Refuse(set, lastGood, rejected.Output) { // again: with the last good content of what HAProxy named
package certfiles
