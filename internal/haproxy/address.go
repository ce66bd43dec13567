package haproxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// CheckAddress accepts what is safe as the address of a server: IP:port, [IPv6]:port or name:port. Everything
// else HAProxy would accept there too, and with powers that no value should have: "unix@" and "abns@" reach
// sockets of this machine, "fd@" takes a descriptor, and "$VAR" expands under any quoting.
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

// CheckHost accepts an IP literal, without brackets and zone, or an RFC 1123 host name.
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

// isHostName wants RFC 1123, and a last label that is not all digits: HAProxy takes "1.2.3.4.5" for a name, and
// then never finds it.
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

// CheckName accepts what HAProxy takes as the name of a proxy, a server or an ACL.
func CheckName(name string) error {
	if name == "" {
		return errors.New("the name is empty")
	}
	for i := range len(name) {
		if c := name[i]; !isLetterOrDigit(c) && strings.IndexByte("_.:-", c) < 0 {
			return fmt.Errorf("a name holds letters, digits and _ . : - only, not %q", c)
		}
	}
	return nil
}

func isLetterOrDigit(c byte) bool { return isNameStart(c) && c != '_' || c >= '0' && c <= '9' }
