package catalog

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// hostNeeded ends every reason about a host.
	hostNeeded = "an IP address or a host name such as app1.example.com is needed"
	portNeeded = "is not a whole number from 1 to 65535"
)

// canonicalHost checks a host and returns its canonical form; names are lower-cased, because DNS names are
// case-insensitive. It accepts IP literals and RFC 1123 host names only: where HAProxy expects an address, other words
// have a meaning ("unix@", "abns@", "$VAR", "fd@").
func canonicalHost(host string) (string, error) {
	if host == "" {
		return "", errors.New("host is empty; " + hostNeeded)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		switch {
		case addr.Zone() != "":
			return "", invalid("host", host, "has a zone, which means something on one machine only; leave it out")
		case addr.Unmap().IsUnspecified():
			return "", invalid("host", host, "means any address; the address that clients can reach is needed")
		}
		return addr.Unmap().String(), nil
	}
	if err := checkHostName(host); err != nil {
		return "", invalid("host", host, err.Error()+"; "+hostNeeded)
	}
	return strings.ToLower(host), nil
}

func checkHostName(host string) error {
	if strings.HasPrefix(host, "[") {
		return errors.New("has brackets, which belong to the bare [address]:port form only")
	}
	if len(host) > 253 {
		return fmt.Errorf("has %d characters, a host name at most 253", len(host))
	}
	for _, r := range host {
		if !alnum(r) && r != '-' && r != '.' {
			return fmt.Errorf("holds %q", r)
		}
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		switch {
		case l == "":
			return errors.New("has an empty part between its dots")
		case len(l) > 63:
			return fmt.Errorf("has a part of %d characters, at most 63 are allowed", len(l))
		case l[0] == '-' || l[len(l)-1] == '-':
			return errors.New("has a part that begins or ends with a hyphen")
		}
	}
	// Resolvers take such a word for an old form of an IPv4 address: "10.1" is 10.0.0.1.
	if numeric(labels[len(labels)-1]) {
		return errors.New("ends in a number but is not an IP address")
	}
	return nil
}

func numeric(label string) bool {
	if rest, ok := strings.CutPrefix(strings.ToLower(label), "0x"); ok {
		return strings.Trim(rest, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// parsePort reads plain digits: no sign, leading zero, fraction or exponent.
func parsePort(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '0' || text[0] == '+' {
		return 0, invalid("port", text, portNeeded)
	}
	return int(n), nil
}
