package haproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// CheckAddress accepts only addresses that are safe for a server: IP:port, [IPv6]:port or name:port. HAProxy accepts
// more, which no value may use: "unix@" and "abns@" reach sockets of this machine, "fd@" takes a descriptor, and "$VAR"
// is expanded under any quoting.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return errors.New("want IP:port, [IPv6]:port or name:port")
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 1 || n > 65535 || port != strconv.Itoa(n) {
		return fmt.Errorf("the port must be a number from 1 to 65535, not %.20q", port)
	}
	return CheckHost(host)
}

// CheckHost returns an error unless host is an IP literal without brackets and zone, or an RFC 1123 host name.
func CheckHost(host string) error {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return errors.New("the IPv6 address has a zone, which HAProxy cannot read")
		}
		return nil
	}
	if isHostName(host) {
		return nil
	}
	return errors.New("the host must be an IP address or a host name of letters, digits, dots and hyphens")
}

// isHostName accepts RFC 1123 names whose last label is not all digits: HAProxy takes "1.2.3.4.5" for a name and can
// never resolve it.
func isHostName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; c != '-' && c != '_' && !isLetterOrDigit(c) {
				return false
			}
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

// CheckName returns an error unless HAProxy accepts the name for a proxy, a server or an ACL.
func CheckName(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	for i := range len(name) {
		if c := name[i]; !isLetterOrDigit(c) && strings.IndexByte("_.:-", c) < 0 {
			return fmt.Errorf("a name consists of letters, digits and _ . : -, not %q", c)
		}
	}
	return nil
}

func isLetterOrDigit(c byte) bool { return isNameStart(c) && c != '_' || c >= '0' && c <= '9' }

// CheckAnyAddress accepts what HAProxy takes as the address of a server and what can be checked: CheckAddress's, those
// without a port (HAProxy then uses the port of the client's connection), IPv6 with a port behind its last colon, families
// (ipv4@, ipv6@) and sockets. It is for data of operators: see IsSocketAddress.
func CheckAnyAddress(address string) error {
	if CheckAddress(address) == nil || IsSocketAddress(address) {
		return nil
	}
	for _, family := range []string{"ipv4@", "ipv6@"} {
		if rest, ok := strings.CutPrefix(address, family); ok {
			if strings.Contains(rest, "@") {
				return errors.New("the address has two families")
			}
			return CheckAnyAddress(rest)
		}
	}
	host := address
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if CheckHost(host) == nil {
		return nil
	}
	if at := strings.LastIndexByte(address, ':'); at > 0 {
		if ip, err := netip.ParseAddr(address[:at]); err == nil && ip.Is6() {
			return CheckAddress("[" + ip.String() + "]" + address[at:])
		}
	}
	return errors.New("want an address of a server, such as 192.0.2.1:80, [2001:db8::1]:80, name:80 or unix@/run/app.sock")
}

// IsSocketAddress reports whether an address is that of a unix socket: an absolute path, unix@ with one, or abns@ with a name.
func IsSocketAddress(address string) bool {
	if name, ok := strings.CutPrefix(address, "abns@"); ok {
		return CheckName(name) == nil
	}
	path := strings.TrimPrefix(address, "unix@")
	return strings.HasPrefix(path, "/") && !strings.Contains(path, "..") && !strings.Contains(path, "//") && CheckName(strings.ReplaceAll(path, "/", "_")) == nil
}
