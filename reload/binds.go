package reload

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"nuncio/internal/haproxy"
)

// maxProbes bounds the addresses tried for one set of files: every port once, say.
const maxProbes = 1 << 16

// bind is one address that a configuration makes HAProxy listen on, as far as it can be judged from the text.
type bind struct {
	addr  netip.AddrPort
	name  string // instead of an IP address, which the first look-up gives
	v4    bool   // ipv4@
	v6    bool
	only6 bool   // v6only
	dual  bool   // v4v6
	dev   string // interface
	line  int
}

// listener is what has to be equal for HAProxy to hand a listener over to the next worker on a reload.
type listener struct {
	addr netip.AddrPort
	name string
	v6   bool
	dev  string
}

func (b bind) listener() listener { return listener{b.addr, b.name, b.v6, b.dev} }

// Taken is an address on which HAProxy is to listen and cannot.
type Taken struct {
	Addr   netip.AddrPort
	Reason string // the kernel's
	Line   int    // of the configuration
	// Still tells whether the address cannot be had now either.
	Still func() bool
}

// AddressInUse is an address on which HAProxy is to listen and cannot.
type AddressInUse struct {
	Addr   netip.AddrPort
	Reason string // the kernel's
	Line   int    // of the configuration
	bind   bind
	alone  bool // a listener that shares its port is in the way too
}

// StillInUse tries again to bind the address, with the options of its bind line. It takes a few system calls.
func (a AddressInUse) StillInUse() bool {
	if !a.bind.addr.IsValid() { // made by hand
		a.bind = bind{addr: a.Addr, v6: a.Addr.Addr().Is6()}
	}
	return a.bind.taken(a.alone) != nil
}

// BindError says which addresses are in use. HAProxy was not reloaded.
type BindError struct {
	Addresses []AddressInUse // at least one
}

// Error names the first of them.
func (e *BindError) Error() string {
	first := e.Addresses[0]
	text := fmt.Sprintf("bind %s (%s:%d): %s", first.Addr, haproxy.ConfigFile, first.Line, first.Reason)
	if more := len(e.Addresses) - 1; more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}

// probeBinds tries to bind what next listens on and running does not; its error is a *BindError. "haproxy -c" does not
// look at this, and a reload that then meets a taken address closes every listener for two seconds. What cannot be
// judged from here (file descriptors, sockets in the file system, other network namespaces) is skipped.
func probeBinds(ctx context.Context, running, next []bind) error {
	kept, ports := map[listener]bool{}, map[uint16]bool{}
	for _, r := range running {
		kept[r.listener()], ports[r.addr.Port()] = true, true
	}
	fresh := slices.DeleteFunc(slices.Clone(next), func(b bind) bool { return kept[b.listener()] })
	if len(fresh) == 0 {
		return nil
	}
	names, cancel := newNames(ctx)
	defer cancel()
	for _, r := range names.resolve(running) {
		kept[r.listener()] = true
	}
	fresh = names.resolve(fresh)
	var found BindError
	for _, b := range fresh[:min(len(fresh), maxProbes)] {
		if kept[b.listener()] {
			continue
		}
		// HAProxy binds with SO_REUSEPORT, so its own old listeners on an overlapping address do not hinder it. Where it
		// has none, a foreign process that shares its port with everyone would silently get part of the traffic.
		found.add(b, !ports[b.addr.Port()])
	}
	return found.orNil()
}

// takenBinds finds what kept haproxy from starting. Here an old listener of its own may be left, which shares its port.
func takenBinds(ctx context.Context, next []bind) error {
	names, cancel := newNames(ctx)
	defer cancel()
	next = names.resolve(next)
	var found BindError
	for _, b := range next[:min(len(next), maxProbes)] {
		found.add(b, false)
	}
	return found.orNil()
}

func (e *BindError) add(b bind, alone bool) {
	if err := b.taken(alone); err != nil {
		e.Addresses = append(e.Addresses, AddressInUse{Addr: b.addr, Reason: err.Error(), Line: b.line, bind: b, alone: alone})
	}
}

func (e *BindError) orNil() error {
	if len(e.Addresses) == 0 {
		return nil
	}
	return e
}

// taken says what is in the way of HAProxy's listener; alone, also of one that does not share its port.
func (b bind) taken(alone bool) error {
	err := b.try(true)
	if err == nil && alone {
		err = b.try(false)
	}
	return err
}

// try binds without listening: a listener of ours would take connections away from HAProxy's. It returns nil
// too when this process cannot tell.
func (b bind) try(share bool) error {
	family := unix.AF_INET
	if b.v6 {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // no IPv6 here, or no file descriptor left: HAProxy itself has to tell
	}
	defer func() { _ = unix.Close(fd) }() // nothing was written
	set := func(level, option, value int) { err = errors.Join(err, unix.SetsockoptInt(fd, level, option, value)) }
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if share {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if b.only6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	} else if b.dual {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if b.dev != "" {
		err = errors.Join(err, unix.BindToDevice(fd, b.dev))
	}
	if err != nil {
		return nil // the question cannot be put as HAProxy will put it
	}
	var sa unix.Sockaddr = &unix.SockaddrInet4{Port: int(b.addr.Port()), Addr: b.addr.Addr().As4()}
	if b.v6 {
		sa = &unix.SockaddrInet6{Port: int(b.addr.Port()), Addr: b.addr.Addr().As16()}
	}
	err = unix.Bind(fd, sa)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil // HAProxy's program may have a capability for low ports that this one lacks
	}
	return err
}

// binds finds the TCP listeners of a configuration that can be judged.
func binds(config []byte, env func(string) (string, bool)) []bind {
	lines, _ := haproxy.Lex(config, env) // refuse has looked at the error
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
			out = append(out, lineBinds(l, first)...)
			if len(out) > maxProbes {
				return out
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
	if proto.v4 = v4; !v4 {
		rest, proto.v6 = strings.CutPrefix(address, "ipv6@")
	}
	colon := strings.LastIndexByte(rest, ':')
	// The address parser expands $NAME once more, under any quoting.
	if colon < 0 || strings.ContainsAny(rest, "@/$") {
		return nil
	}
	host := strings.TrimSuffix(strings.TrimPrefix(rest[:colon], "["), "]")
	ip, err := netip.ParseAddr(host)
	switch {
	case (host == "" || host == "*") && proto.v6:
		ip = netip.IPv6Unspecified()
	case host == "" || host == "*":
		ip = netip.IPv4Unspecified()
	case err != nil && isHostName(host):
		proto.name = host
	case err != nil || ip.Zone() != "" || v4 && ip.Is6():
		return nil
	}
	proto.v6 = proto.v6 || ip.Is6()
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
	for port := from; port <= to && len(out) <= maxProbes; port++ {
		b := proto
		b.addr = netip.AddrPortFrom(ip, uint16(port))
		out = append(out, b)
	}
	return out
}
