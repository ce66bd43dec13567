package reload

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"time"
)

// lookupLimit bounds all look-ups for one set of files. A name that is not known by then is not judged.
const lookupLimit = time.Second

// names looks host names up, each of them once.
type names struct {
	lookup func(network, name string) []netip.Addr
	known  map[string][]netip.Addr
}

// newNames makes one for a short time; its second result ends it.
func newNames(ctx context.Context) (*names, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	lookup := func(network, name string) []netip.Addr {
		found, _ := net.DefaultResolver.LookupNetIP(ctx, network, name) // without an answer there is no verdict
		return found
	}
	return &names{lookup: lookup, known: map[string][]netip.Addr{}}, cancel
}

// resolve gives binds their addresses, and leaves out those of which none is certain.
func (n *names) resolve(binds []bind) []bind {
	out := make([]bind, 0, len(binds))
	for _, b := range binds {
		if b.name == "" {
			out = append(out, b)
			continue
		}
		if ip := n.address(b); ip.IsValid() {
			b.addr, b.name, b.v6 = netip.AddrPortFrom(ip, b.addr.Port()), "", ip.Is6()
			out = append(out, b)
		}
	}
	return out
}

// address is what HAProxy will take. It listens on the first address of a name; both look-ups sort them in the same way
// (RFC 6724), but which of several of a kind comes first is a matter of chance.
func (n *names) address(b bind) netip.Addr {
	network := "ip"
	switch {
	case b.v4:
		network = "ip4"
	case b.v6:
		network = "ip6"
	}
	found, ok := n.known[network+b.name]
	if !ok {
		found = n.lookup(network, b.name)
		n.known[network+b.name] = found
	}
	var first netip.Addr
	for _, ip := range found {
		switch ip = ip.Unmap(); {
		case !first.IsValid():
			first = ip
		case ip != first && ip.Is4() == first.Is4():
			return netip.Addr{}
		}
	}
	return first.WithZone("")
}

// isHostName tells names from what else HAProxy may read before the port.
func isHostName(text string) bool {
	return strings.Trim(text, "0123456789.") != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}
