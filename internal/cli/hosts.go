package cli

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// KnownHosts refuses requests for a host name that is not this server's. A foreign web page, open in a browser that can
// reach the listener, could point its own name at this address and read everything (DNS rebinding), but it cannot use
// an IP address or localhost as its name. If the listener is not on loopback, its names are unknown and the operator
// has opened it to others anyway, so KnownHosts refuses nothing unless names are given.
func KnownHosts(listener net.Addr, names []string, next http.Handler) http.Handler {
	addr, err := netip.ParseAddrPort(listener.String())
	if len(names) == 0 && (err != nil || !addr.Addr().IsLoopback()) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, names) {
			http.Error(w, "This server has no such host name; add it with --admin-host.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// knownHost reports whether a Host header is accepted. An empty one comes from simple health checks, never from a
// browser.
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
