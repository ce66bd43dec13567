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
	lag     string          // why HAProxy goes on with earlier records; empty while it does not, or only for a moment
	others  map[string]bool // the names of all services, while HAProxy lags
}

func newLookup(servers *servers, routes *routes, o *Overview, snap *catalog.Snapshot) *lookup {
	l := &lookup{servers: servers, routes: routes, o: o, lag: lag(o), others: map[string]bool{}}
	if l.lag != "" {
		for _, svc := range snap.Services {
			l.others[svc.Name] = true
		}
	}
	return l
}

// find returns the servers of an instance. Templates name backends and servers as they like, so the address decides. A
// server that only has the right name is meant where a host name keeps HAProxy from showing the record's address, or
// where templates chose another one; but while HAProxy lags, its address is that of an earlier record, and stale
// says so.
func (l *lookup) find(r row) (found []haproxy.ServerStat, stale string) {
	address := r.inst.Addr()
	named := l.servers.byName[[2]string{r.service.Name, r.inst.Name}]
	var same []haproxy.ServerStat
	for _, server := range named {
		has := l.addressOf(server, !isIP(r.inst.Host))
		if l.lag == "" || has == "" || has == address {
			same = append(same, server)
		} else {
			stale = "HAProxy still has " + has + " for it"
		}
	}
	at, foreign := l.withoutOthers(r, l.servers.byAddr[address])
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

// withoutOthers leaves out the servers of other services, while HAProxy lags: Docker gives the port of a container that
// is gone to the next one, whatever its service.
func (l *lookup) withoutOthers(r row, at []haproxy.ServerStat) (own []haproxy.ServerStat, foreign string) {
	for _, server := range at {
		if server.Backend != r.service.Name && server.Name != r.inst.Name && l.others[server.Backend] {
			foreign = server.Backend + "/" + server.Name
		} else {
			own = append(own, server)
		}
	}
	return own, foreign
}

// addressOf returns the address that HAProxy has for a server; of a host name, how the configuration spells it. It is empty where
// neither is known.
func (l *lookup) addressOf(server haproxy.ServerStat, byName bool) string {
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
