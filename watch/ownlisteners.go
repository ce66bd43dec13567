package watch

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"nuncio/internal/catalog"
)

// RefuseOwnListeners returns a rule for StoreOptions.Refuse: it quarantines records that lead to nuncio's own listeners.
// Otherwise a writer of service records could expose the admin page or the embedded etcd to HAProxy's clients, or ask for
// the same port.
func RefuseOwnListeners(listeners ...string) func(*catalog.Instance) string {
	type own struct {
		ip   netip.Addr
		port int
	}
	var ours []own
	for _, l := range listeners {
		host, portText, err := net.SplitHostPort(l)
		if err != nil {
			continue // no listener, or one that has failed with its own error
		}
		port, err := strconv.Atoi(portText)
		if err != nil {
			continue
		}
		ip, _ := netip.ParseAddr(host) // a name, or none, stands for every address of this machine
		ours = append(ours, own{ip, port})
	}
	return func(i *catalog.Instance) string {
		for _, o := range ours {
			// HAProxy loads no configuration that binds a port which is in use.
			if i.Meta["tcp.port"] == strconv.Itoa(o.port) {
				return fmt.Sprintf("tcp.port %d is the port of nuncio's own listener", o.port)
			}
			if i.Port == o.port && leadsTo(i.Host, o.ip) {
				return fmt.Sprintf("%s is nuncio's own listener, which is not for HAProxy's clients", i.Addr())
			}
		}
		return ""
	}
}

// loopbackNames are the names that distributions write into /etc/hosts for this machine.
var loopbackNames = map[string]bool{"localhost": true, "localhost.localdomain": true, "ip6-localhost": true, "ip6-loopback": true}

// leadsTo reports whether host is the listener's address or a way to it. A listener on one loopback address cannot be
// reached by a different one. Host names are left to HAProxy to resolve, except for those that always mean this machine.
func leadsTo(host string, listener netip.Addr) bool {
	if loopbackNames[host] || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	switch {
	case !listener.IsValid() || listener.IsUnspecified():
		return ip.IsLoopback() || ip.IsUnspecified() || onThisMachine(ip)
	default:
		return ip == listener.Unmap() || ip.IsUnspecified()
	}
}

func onThisMachine(ip netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}
