// Package status answers for nuncio over HTTP: whether it lives (/healthz), whether traffic may be sent to its
// HAProxy (/readyz), its metrics (/metrics), what it is doing (/v1/status, /v1/services, /v1/generations, /v1/diff,
// and /v1/events for those who wait for changes), and a page that shows all of that to people.
//
// It promises to be read-only; to hide what looks like a password in configurations, endpoints and meta; to give a
// reason with every "no"; that the page works without JavaScript and fetches nothing from elsewhere; that every value
// on it is escaped; and that HAProxy is asked for its servers' health only while somebody looks, once a second at
// most. It refuses to decide anything: it shows what other rooms publish, through the functions in Options.
//
//	s := status.New(status.Options{Report: report, Gatherer: registry, Overview: overview})
//	err := s.Run(ctx, listener)
package status
