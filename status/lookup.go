package status

import (
	"net/netip"
	"strings"

	"nuncio/internal/catalog"
	"nuncio/internal/haproxy"
)

// lookup joins what HAProxy says of its servers with what it was told, for one answer.
type lookup struct {
	servers *servers
	routes  *routes
	o       *Overview
	behind  string          // why HAProxy goes on with earlier records; empty while it does not, or only for a moment
	others  map[string]bool // the names of all services, while HAProxy is behind
}

func newLookup(servers *servers, routes *routes, o *Overview, snap *catalog.Snapshot) *lookup {
	l := &lookup{servers: servers, routes: routes, o: o, behind: behind(o), others: map[string]bool{}}
	if l.behind != "" {
		for _, svc := range snap.Services {
			l.others[svc.Name] = true
		}
	}
	return l
}

// of finds the servers of an instance. Templates name backends and servers as they like, so the address decides. A
// server that only has the right name is meant where a host name keeps HAProxy from showing the record's address, or
// where templates chose another one; but while HAProxy is behind, its address is that of an earlier record, and stale
// says so.
func (l *lookup) of(r row) (found []haproxy.ServerStat, stale string) {
	address := r.inst.Addr()
	named := l.servers.byName[[2]string{r.service.Name, r.inst.Name}]
	var same []haproxy.ServerStat
	for _, server := range named {
		has := l.has(server, !isIP(r.inst.Host))
		if l.behind == "" || has == "" || has == address {
			same = append(same, server)
		} else {
			stale = "HAProxy still has " + has + " for it"
		}
	}
	at, foreign := l.ofOthers(r, l.servers.byAddr[address])
	// Two services may share an address: then those with the right name are meant.
	for _, server := range at {
		if server.Backend == r.service.Name && server.Name == r.inst.Name {
			return named, ""
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

// ofOthers leaves out the servers of other services, while HAProxy is behind: Docker gives the port of a container that
// is gone to the next one, whatever its service.
func (l *lookup) ofOthers(r row, at []haproxy.ServerStat) (own []haproxy.ServerStat, foreign string) {
	for _, server := range at {
		if server.Backend != r.service.Name && server.Name != r.inst.Name && l.others[server.Backend] {
			foreign = server.Backend + "/" + server.Name
		} else {
			own = append(own, server)
		}
	}
	return own, foreign
}

// has is the address that HAProxy has for a server; of a host name, how the configuration spells it. It is empty where
// neither is known.
func (l *lookup) has(server haproxy.ServerStat, byName bool) string {
	if byName {
		return l.routes.servers[[2]string{server.Backend, server.Name}]
	}
	return canonical(server.Addr)
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
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
