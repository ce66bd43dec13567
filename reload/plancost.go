package reload

import (
	"strconv"
	"time"
)

// What commands and reloads cost, measured by TestBreakEven; see docs/performance.md. They
// decide only when a reload is the cheaper way, so their order of magnitude is what matters.
const (
	commandCost   = 6 * time.Microsecond   // any command but add
	searchCost    = 9 * time.Nanosecond    // 2.6 looks a server up by going through its backend's list
	addCost       = 30 * time.Microsecond  // add, enable health, enable server
	addInCost     = 40 * time.Nanosecond   // the same, for each server the backend has already
	entryCost     = 6 * time.Microsecond   // an entry of a map or a list
	reloadBase    = 120 * time.Millisecond // write, check and reload of a small configuration, to the proof
	reloadPerByte = 300 * time.Nanosecond  // the same, for each byte of the configuration
)

func (d *draft) setCost() time.Duration {
	if d.version.AtLeast(3, 0) {
		return commandCost
	}
	return commandCost + time.Duration(d.size)*searchCost
}

func (d *draft) addCost() time.Duration { return addCost + time.Duration(d.size)*addInCost }

func reloadCost(size int) time.Duration { return reloadBase + time.Duration(size)*reloadPerByte }

// connectTime is how long a stream may go on trying to connect to a server, with some to spare; 0 retries
// are one attempt. What cannot be read counts as long.
func connectTime(timeout, retries string) time.Duration {
	const unknown = 10 * time.Minute
	limit, ok := haproxyDuration(timeout)
	if !ok {
		return unknown
	}
	n := 3
	if retries != "" {
		var err error
		if n, err = strconv.Atoi(retries); err != nil || n < 0 {
			return unknown
		}
	}
	return time.Duration(n+1)*(limit+time.Second) + time.Second // HAProxy pauses up to a second between attempts
}

// haproxyDuration reads "5s", "1500" (milliseconds) and the like.
func haproxyDuration(text string) (time.Duration, bool) {
	digits := 0
	for digits < len(text) && text[digits] >= '0' && text[digits] <= '9' {
		digits++
	}
	n, err := strconv.ParseInt(text[:digits], 10, 32)
	unit, ok := map[string]time.Duration{
		"us": time.Microsecond, "": time.Millisecond, "ms": time.Millisecond, "s": time.Second,
		"m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	}[text[digits:]]
	return time.Duration(n) * unit, ok && err == nil
}
