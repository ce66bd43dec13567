// Package status shows what nuncio is doing and takes operators' orders. Over HTTP it serves liveness (/healthz),
// readiness (/readyz), metrics (/metrics), documents (/v1/status, /v1/services, /v1/generations, /v1/history, /v1/diff, and
// /v1/events for programs that wait for changes) and a page that shows all of that. A unix socket serves the same to
// operators of this machine and takes their orders (see Client).
//
// It decides which state nuncio is in as a whole, and for which reasons, from the statuses of the packages below. It
// promises to take each status once per document; to be read-only on the network; to hide what looks like a password in
// configurations, endpoints and meta, and the values of quarantined records; to give a reason with every "no"; that the page
// works without JavaScript and fetches nothing from elsewhere; that every value on it is escaped; and that HAProxy is asked
// for its servers' health only while a client is connected, once a second at most. It changes nothing itself.
//
//	s := status.New(status.Options{Registry: registry, Applier: manager, Reconciler: reconciler, Store: store, Disk: disk})
//	err := s.Run(ctx, listener)
package status
