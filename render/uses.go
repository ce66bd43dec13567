package render

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// uses reports whether any service has one of the keys, so that templates need no rule for what nobody asks for.
func (t *Templates) uses(keys ...string) (bool, error) {
	if err := t.run.aboutAll("uses"); err != nil {
		return false, err
	}
	s := &t.summaries
	if s.keys == nil {
		s.keys = make(map[string]bool)
		for _, summary := range s.of(t.run.snap.Services) {
			for key, value := range summary.Meta {
				s.keys[key] = s.keys[key] || value != ""
			}
		}
	}
	for _, key := range keys {
		if s.keys[key] {
			return true, nil
		}
	}
	return false, nil
}

// watched reports whether nuncio reads keys below a directory; the store functions refuse others. It does not change while
// nuncio runs, so memo may use it.
func (t *Templates) watched(dir string) bool {
	ranges := t.run.snap.Watched
	return ranges == nil || ranges.Touch(strings.TrimSuffix(dir, "/")+"/")
}

// aboutAll returns an error inside a memo of one service, whose output may not depend on others.
func (r *run) aboutAll(function string) error {
	if r.inMemo == "" || r.memoOfAll {
		return nil
	}
	return fmt.Errorf("function %q inside memo %q of a service: the output may depend on that service only; use it in a memo of .Summaries", function, r.inMemo)
}

// networkDigits returns the hexadecimal digits that the addresses of a network begin with, as HAProxy's converter "hex" writes
// them: one text for a network whose length is a multiple of four bits, up to eight for others. IPv4 is a part of IPv6. It
// returns none for a text that is no network.
func networkDigits(network string) []string {
	prefix, err := netip.ParsePrefix(network)
	if err != nil {
		addr, err := netip.ParseAddr(network)
		if err != nil || addr.Zone() != "" {
			return nil
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	bytes := prefix.Masked().Addr().As16()
	digits := strings.ToUpper(hex.EncodeToString(bytes[:]))
	if bits%4 == 0 {
		return []string{digits[:bits/4]}
	}
	var all []string
	first, err := hexDigit(digits[bits/4])
	if err != nil {
		return nil
	}
	for i := range 1 << (4 - bits%4) {
		all = append(all, digits[:bits/4]+strings.ToUpper(fmt.Sprintf("%x", first+i)))
	}
	return all
}

func hexDigit(c byte) (n int, err error) {
	_, err = fmt.Sscanf(string(c), "%x", &n)
	return n, err
}
