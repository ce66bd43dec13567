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
