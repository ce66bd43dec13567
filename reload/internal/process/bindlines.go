package process

import (
	"net/netip"
	"strconv"
	"strings"

	"nuncio/internal/haproxy"
)

// maxProbes bounds the addresses tried for one set of files: every port once, say.
const maxProbes = 1 << 16

// bind is one address that a configuration makes HAProxy listen on. Of a host name only the port is known.
type bind struct {
	addr  netip.AddrPort
	only6 bool   // v6only
	dual  bool   // v4v6
	dev   string // interface
	line  int
}

// binds returns the TCP listeners of a configuration, without those that cannot be tried from here, maxProbes at most.
func binds(config []byte, env func(string) (string, bool)) []bind {
	lines, _ := haproxy.Lex(config, env) // Vet has looked at the error
	var out []bind
	for _, s := range haproxy.Sections(lines) {
		for _, l := range s.Lines {
			first := 1
			switch {
			case l.Keyword() == "bind" && s.Kind != "":
			case s.Kind == "global" && l.Keyword() == "stats" && word(l, 1) == "socket":
				first = 2
			default:
				continue
			}
			if out = append(out, lineBinds(l, first)...); len(out) > maxProbes {
				return out[:maxProbes]
			}
		}
	}
	return out
}

func lineBinds(l haproxy.Line, first int) []bind {
	proto := bind{line: l.Number}
	for i := first + 1; i < len(l.Words); i++ {
		switch word(l, i) {
		case "v6only":
			proto.only6 = true
		case "v4v6":
			proto.dual = true
		case "interface":
			proto.dev = word(l, i+1)
		case "transparent", "namespace":
			return nil // an address that is not ours, or not here
		}
	}
	var out []bind
	for address := range strings.SplitSeq(word(l, first), ",") {
		out = append(out, expand(address, proto)...)
	}
	return out
}

// expand reads "[<family>@][<ip>|<name>]:<port>[-<port>]" as HAProxy does: no address, or "*", is IPv4's wildcard.
func expand(address string, proto bind) []bind {
	rest, v4 := strings.CutPrefix(address, "ipv4@")
	rest, v6 := strings.CutPrefix(rest, "ipv6@")
	colon := strings.LastIndexByte(rest, ':')
	// The address parser expands $NAME once more, under any quoting.
	if colon < 0 || strings.ContainsAny(rest, "@/$") {
		return nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(rest[:colon], "["), "]")
	ip, err := netip.ParseAddr(host)
	switch {
	case (host == "" || host == "*") && v6:
		ip = netip.IPv6Unspecified()
	case host == "" || host == "*":
		ip = netip.IPv4Unspecified()
	case err != nil && isHostName(host):
		ip = netip.Addr{}
	case err != nil || ip.Zone() != "" || v4 && ip.Is6():
		return nil
	}
	low, high, isRange := strings.Cut(rest[colon+1:], "-")
	if !isRange {
		high = low
	}
	from, err1 := strconv.ParseUint(low, 10, 16)
	to, err2 := strconv.ParseUint(high, 10, 16)
	if err1 != nil || err2 != nil || from == 0 || to < from {
		return nil
	}
	var out []bind
	for port := from; port <= to; port++ {
		proto.addr = netip.AddrPortFrom(ip, uint16(port))
		out = append(out, proto)
	}
	return out
}

// isHostName tells a host name from what else HAProxy may read before the port.
func isHostName(text string) bool {
	return strings.Trim(text, "0123456789.") != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") == ""
}
