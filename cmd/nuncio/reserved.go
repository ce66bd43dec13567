package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"nuncio/internal/catalog"
)

// notOurselves refuses records that lead to nuncio's own listeners: whoever may write a service record could otherwise
// show the admin page, or the embedded etcd, to everybody who can reach HAProxy, or ask for the same port.
func notOurselves(listeners ...string) func(*catalog.Instance) string {
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
		ip, _ := netip.ParseAddr(host) // a name, or none: every address of this machine is meant
		ours = append(ours, own{ip, port})
	}
	return func(i *catalog.Instance) string {
		for _, o := range ours {
			// A listener on a port that is taken keeps HAProxy from taking any new configuration.
			if i.Meta["tcp.port"] == strconv.Itoa(o.port) {
				return fmt.Sprintf("tcp.port %d is the port of nuncio's own listener", o.port)
			}
			if i.Port == o.port && local(i.Host, o.ip) {
				return fmt.Sprintf("%s is nuncio's own listener, which is not for HAProxy's clients", i.Addr())
			}
		}
		return ""
	}
}

// ofLoopback are the names that distributions write into /etc/hosts for this machine.
var ofLoopback = map[string]bool{"localhost": true, "localhost.localdomain": true, "ip6-localhost": true, "ip6-loopback": true}

// local tells whether host is the listener's address, or a way to it. A listener on one loopback address is not reached
// by another; what a host name leads to is HAProxy's to find out, except for those that always mean this machine.
func local(host string, listener netip.Addr) bool {
	if ofLoopback[host] || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	switch {
	case !listener.IsValid() || listener.IsUnspecified():
		return ip.IsLoopback() || ip.IsUnspecified() || ofThisMachine(ip)
	default:
		return ip == listener.Unmap() || ip.IsUnspecified()
	}
}

// listen opens the admin listener. What a killed nuncio had just forked may hold the address for a moment longer than
// nuncio itself, and whoever starts the next one at once shall not fail for that.
func listen(addr string) (net.Listener, error) {
	for end := time.Now().Add(2 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		l, err := net.Listen("tcp", addr)
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(end) {
			return l, err
		}
	}
}

func ofThisMachine(ip netip.Addr) bool {
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
