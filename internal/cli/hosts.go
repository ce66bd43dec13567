package cli

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// KnownHosts refuses requests for a name that is not this server's. A page of a stranger, open in a browser that can reach
// the listener, may let its own name lead here and then read what it likes (DNS rebinding); it can give neither an IP address
// nor localhost as its name. Behind a listener that is not on loopback the names are not known, and the operator has
// opened it to others anyway: there nothing is refused until names are given.
func KnownHosts(listener net.Addr, names []string, next http.Handler) http.Handler {
	addr, err := netip.ParseAddrPort(listener.String())
	if len(names) == 0 && (err != nil || !addr.Addr().IsLoopback()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, names) {
			http.Error(w, "This server is not known by the name in your request; --admin-host would make it known.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost judges a Host header. None at all comes from simple health checks, and never from a browser.
func knownHost(host string, names []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.TrimSuffix(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") ||
		slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, host) })
}
