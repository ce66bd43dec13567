package plan

import (
	"strconv"
	"time"
)

// Leaving is a server that is no longer in the files and that HAProxy still has, in maintenance, or a backend that is not
// published any more: something may use it.
type Leaving struct {
	Backend string
	Name    string        // of the server; empty for the backend itself
	Due     time.Time     // when it may be deleted; the caller sets it
	Linger  time.Duration // how long it has to stay in maintenance at least
	server  *server       // nil if it is not known, of one that Adopt has found
	from    string        // the defaults section of a backend; empty if it is not known
}

// Target returns the name as commands want it.
func (l Leaving) Target() string {
	if l.Name == "" {
		return l.Backend
	}
	return l.Backend + "/" + l.Name
}

// linger returns how long a server of the section has to stay in maintenance before it may be deleted. HAProxy 2.6 deletes
// one that streams still try to connect to; no stream does so for longer than its attempts may take.
func (d *builder) linger() time.Duration {
	if d.Version.AtLeast(3, 0) {
		return 0
	}
	return connectTime(d.Next.setting(d.section, "timeout connect"), d.Next.setting(d.section, "retries"))
}

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
