package status

import "nuncio/internal/haproxy"

// ToNowhere reads a generation and says whether it is certain that nothing leads to a backend.
func ToNowhere(files haproxy.Files, backend string) bool { return readRoutes(files).toNowhere(backend) }
