package process

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"nuncio/internal/haproxy"
)

// AddressInUse is an address on which HAProxy is to listen and cannot. It is a plain value: it may be kept, copied and tried
// again with StillInUse.
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
		a.bind = bind{addr: a.Addr}
	}
	return a.bind.inUse(a.alone) != nil
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

// Probe tries to bind what the configuration next listens on and running does not; its error is a *BindError. "haproxy -c"
// does not try this, and a reload that then finds an address in use closes every listener for two seconds. What cannot be tried
// from here (file descriptors, sockets in the file system, other network namespaces, and host names, whose address is
// HAProxy's choice at the moment of the bind) is skipped: there the reload itself finds out.
func Probe(running, next []byte, env []string) error {
	type listener struct { // what has to be equal for HAProxy to hand a listener over to the next worker on a reload
		addr netip.AddrPort
		dev  string
	}
	kept, ports := map[listener]bool{}, map[uint16]bool{}
	for _, r := range binds(running, lookup(env)) {
		kept[listener{r.addr, r.dev}], ports[r.addr.Port()] = true, true
	}
	fresh := slices.DeleteFunc(binds(next, lookup(env)), func(b bind) bool { return kept[listener{b.addr, b.dev}] })
	// HAProxy binds with SO_REUSEPORT, so its own old listeners on an overlapping address do not hinder it. Where it has
	// none, a foreign process that shares its port with everyone would silently get part of the traffic.
	return find(fresh, func(b bind) (alone bool) { return !ports[b.addr.Port()] })
}

// ProbeAll tries everything that a configuration listens on, after a start that failed. An old listener of HAProxy's own may be
// left, which shares its port. Its error is a *BindError.
func ProbeAll(config []byte, env []string) error {
	return find(binds(config, lookup(env)), func(bind) (alone bool) { return false })
}

func find(binds []bind, alone func(bind) bool) error {
	var found BindError
	for _, b := range binds {
		if !b.addr.Addr().IsValid() {
			continue // a host name
		}
		if err := b.inUse(alone(b)); err != nil {
			found.Addresses = append(found.Addresses, AddressInUse{Addr: b.addr, Reason: err.Error(), Line: b.line, bind: b, alone: alone(b)})
		}
	}
	if len(found.Addresses) == 0 {
		return nil
	}
	return &found
}

// inUse returns what is in the way of HAProxy's listener; with alone, also of one that does not share its port.
func (b bind) inUse(alone bool) error {
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
	var sa unix.Sockaddr
	if ip, port := b.addr.Addr(), int(b.addr.Port()); ip.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: ip.As16()}
	} else {
		sa = &unix.SockaddrInet4{Port: port, Addr: ip.As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil // no IPv6 here, or no file descriptor left: HAProxy itself finds out
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
		return nil // it cannot be tried as HAProxy will bind
	}
	err = unix.Bind(fd, sa)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return nil // HAProxy's program may have a capability for low ports that this one lacks
	}
	return err
}
