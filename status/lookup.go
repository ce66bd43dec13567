package status

import (
	"net/netip"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
)

// lookup joins HAProxy's servers with the running configuration, for one answer.
type lookup struct {
	servers *servers
	routes  *routes
	o       *Overview
	snap    *catalog.Snapshot
	lag     string // why HAProxy goes on with earlier records; empty while it does not, or only for a moment
}

// find returns the servers of an instance. Templates name backends and servers as they like, so the address decides. A
// server that only has the right name is meant where a host name keeps HAProxy from showing the record's address, or
// where templates chose another one; but while HAProxy lags, its address is that of an earlier record, and stale
// says so.
func (l *lookup) find(r row) (found []haproxy.ServerStat, stale string) {
	address := r.inst.Addr()
	_, isName := netip.ParseAddr(r.inst.Host)
	named := l.servers.byName[[2]string{r.service.Name, r.inst.Name}]
	var same []haproxy.ServerStat
	for _, server := range named {
		has := canonical(server.Addr)
		if isName != nil { // HAProxy shows what it resolved; the configuration has the name
			has = l.routes.servers[[2]string{server.Backend, server.Name}]
		}
		if l.lag == "" || has == "" || has == address {
			same = append(same, server)
		} else {
			stale = "HAProxy still has " + has + " for it"
		}
	}
	var at []haproxy.ServerStat
	foreign := ""
	for _, server := range l.servers.byAddr[address] {
		inBackend, byName := server.Backend == r.service.Name, server.Name == r.inst.Name
		switch {
		case inBackend && byName:
			return named, "" // two services may share an address
		case !inBackend && !byName && l.lag != "" && l.snap.Service(server.Backend) != nil:
			// Docker gives the port of a container that is gone to the next one, whatever its service.
			foreign = server.Backend + "/" + server.Name
		default:
			at = append(at, server)
		}
	}
	switch {
	case stale != "" && len(same) == 0:
		return nil, stale
	case len(at) > 0:
		return at, ""
	case foreign != "" && len(same) == 0:
		return nil, "HAProxy has its address for " + foreign + " only"
	}
	return same, ""
}

// canonical spells an IPv6 address as records do; HAProxy leaves that to the C library.
func canonical(address string) string {
	if !strings.HasPrefix(address, "[") {
		return address
	}
	if parsed, err := netip.ParseAddrPort(address); err == nil {
		return parsed.String()
	}
	return address
}
