// Package status shows what nuncio is doing and takes operators' commands. Over HTTP it reports whether nuncio is alive
// (/healthz), whether its HAProxy is ready for traffic (/readyz), metrics (/metrics) and details (/v1/status,
// /v1/services, /v1/history, /v1/generations, /v1/diff, and /v1/events for clients that wait for changes), and serves a
// page that shows all of this to people. Commands come over a unix socket in the state directory.
//
// It promises that HTTP is read-only; that it hides what looks like a password in configurations, endpoints and meta; that
// every negative answer has a reason; that the page works without JavaScript, loads nothing from other hosts and escapes
// every value; and that it asks HAProxy for its servers' health only while a client is connected, at most once a second.
// It decides nothing: it reads the status of the packages below.
//
//	s := status.New(status.Options{Applier: manager, Reconciler: reconciler, Store: store, Disk: status.StateDir(dir)})
//	err := s.Run(ctx, listener)
package status
