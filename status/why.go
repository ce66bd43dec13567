package status

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

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

// why says why an instance gets no new requests, the nearest cause first; empty when it gets them. stale is what
// HAProxy has of it instead.
func (l *lookup) why(i *catalog.Instance, v InstanceView, stale string) string {
	switch v.Health {
	case "unknown":
	case "absent":
		if stale != "" {
			return stale + ": " + l.lag
		}
		return "no server of the running configuration has this address: " + l.whyAbsent(i)
	case "down":
		for _, s := range v.Servers {
			if statusWord(s.Status) == "down" {
				return fmt.Sprintf("HAProxy's health check fails for %s/%s, for %s now: %s", s.Backend, s.Name, time.Duration(s.Seconds)*time.Second, cmp.Or(s.Check, "no reason given"))
			}
		}
	case "maint", "drain":
		// HAProxy says so also of a name that it tries only at its start.
		unresolved := func(s ServerView) bool { return s.Status == "MAINT (resolution)" }
		if i.State == catalog.StateReady && slices.ContainsFunc(v.Servers, unresolved) {
			return "HAProxy cannot resolve its host name " + i.Host
		}
		if i.State == catalog.StateReady {
			return "HAProxy has it in " + v.Health + ", though its record says ready: it was set in HAProxy by hand"
		}
		fallthrough
	default:
		if i.State != catalog.StateReady && !v.served() {
			by := ""
			if i.Meta["operator"] != "" {
				by = " (set by nuncio-registrar drain)"
			}
			return "its record says state " + string(i.State) + by
		}
	}
	if i.Weight == 0 && !v.served() {
		return "its record says weight 0"
	}
	return l.whyUnreached(v)
}

// served reports whether HAProxy gives requests to any of its servers.
func (v *InstanceView) served() bool {
	return slices.ContainsFunc(v.Servers, func(s ServerView) bool {
		word := statusWord(s.Status)
		return (word == "up" || word == "unchecked") && s.Weight > 0
	})
}

// differs says in which way HAProxy treats an instance otherwise than its record says, where it gets requests all the same.
func (l *lookup) differs(i *catalog.Instance, v InstanceView) string {
	what := ""
	switch {
	case v.Why != "" || !v.served():
		return ""
	case i.State != catalog.StateReady:
		what = "HAProxy sends it requests although its record says state " + string(i.State)
	case i.Weight == 0:
		what = "HAProxy sends it requests although its record says weight 0"
	default:
		return ""
	}
	switch {
	case l.lag != "":
		return what + ": " + l.lag
	case !l.o.InStep && l.o.Applied.Digest != l.o.Desired.Digest:
		return what + ": a newer configuration is on its way"
	}
	return what + ": the templates do not use that for its server line"
}

// lag says why HAProxy goes on with earlier records.
func lag(o *Overview) string {
	differs := o.Applied.Digest != o.Desired.Digest
	switch {
	case o.Frozen != nil && differs:
		return fmt.Sprintf("generation %d is frozen; nuncio resume ends that", o.Frozen.Generation)
	case o.Error != "" && differs:
		return "the newest configuration could not be applied: " + firstLine(o.Error)
	case o.Templates.RenderError != "":
		return "the templates cannot render the newest records: " + firstLine(o.Templates.RenderError)
	}
	return ""
}

func (l *lookup) whyAbsent(i *catalog.Instance) string {
	o := l.o
	for _, r := range o.Templates.Dropped {
		if droppedFrom(i, r.Value) {
			return fmt.Sprintf("%s dropped its line: %s", r.Template, r.Reason)
		}
	}
	switch {
	case l.lag != "":
		return l.lag
	case i.State != catalog.StateReady:
		return "its record says state " + string(i.State)
	case !o.InStep && o.Applied.Digest != o.Desired.Digest:
		return "a newer configuration is on its way"
	case o.Templates.Error != "":
		return "the templates in use make no server line of it, and the newest ones are not in use: " + firstLine(o.Templates.Error)
	default:
		return "the templates make no server line of it"
	}
}

// droppedFrom reports whether the value of a dropped line is one of a record's: it comes in quotes, and perhaps cut.
func droppedFrom(i *catalog.Instance, dropped string) bool {
	quoted, err := strconv.QuotedPrefix(dropped)
	if err != nil {
		quoted = strconv.Quote(dropped)
	}
	begin, _ := strconv.Unquote(quoted) // QuotedPrefix has found it to be right
	whole := len(quoted) >= len(dropped)
	same := func(v string) bool { return v == begin || !whole && strings.HasPrefix(v, begin) }
	return same(i.Host) || same(i.Name) || same(i.Addr()) || slices.ContainsFunc(i.Tags, same) ||
		slices.ContainsFunc(slices.Collect(maps.Values(i.Meta)), same)
}

// whyUnreached says that nothing leads to any of the backends that have the instance; it is empty unless that is certain
// for each of them.
func (l *lookup) whyUnreached(v InstanceView) string {
	var backends []string
	for _, s := range v.Servers {
		if !l.routes.unreachable(s.Backend) {
			return ""
		}
		backends = append(backends, s.Backend)
	}
	if len(backends) == 0 {
		return ""
	}
	slices.Sort(backends)
	text := "no rule of the configuration leads to backend " + strings.Join(slices.Compact(backends), ", ")
	switch {
	case l.lag != "":
		return text + "; " + l.lag
	case l.unmet(backends[0]) != "":
		return text + ": " + l.unmet(backends[0])
	default:
		return text + ": has the service http.host, http.path or tcp.port (which the shipped templates need), or has another one the same?"
	}
}

// unmet says which routes and ports a service wants and does not have.
func (l *lookup) unmet(service string) string {
	var reasons []string
	for _, u := range l.o.Templates.Unmet {
		switch u.Key {
		case "http.host", "http.path", "tcp.port":
			if u.Service == service {
				reasons = append(reasons, u.Key+": "+u.Reason)
			}
		}
	}
	return strings.Join(reasons, "; ")
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
