package status

import "nuncio/internal/haproxy"

// Unreachable reads a generation and reports whether certainly nothing leads to a backend.
func Unreachable(files haproxy.Files, backend string) bool {
	return readRoutes(files).unreachable(backend)
}

// Patterns lists what the admin listener and the operators' socket answer, as "GET /path".
func (s *Server) Patterns() []string { return s.routeAll().patterns }
