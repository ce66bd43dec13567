package register

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// lookupTimeout ends a lookup whose name server does not answer.
const lookupTimeout = 5 * time.Second

// standing is the address in force. It outlives failed lookups: a name that does not resolve for a moment, or an
// interface that loses its address, is no news about a container.
type standing struct {
	Advertise           // without an IP until a lookup has found one
	known     bool      // a lookup was answered, in whatever way
	trouble   string    // why the last lookup failed; empty when it did not
	failures  int       // in a row
	due       time.Time // the next lookup after a failed one
}

// learn takes the answer of a lookup.
func (s *standing) learn(found Advertise, log *slog.Logger) {
	s.known = true
	if found.IP.IsValid() {
		if s.failures > 0 {
			log.Info("the address to advertise is found again", "address", describe(found))
		}
		*s = standing{Advertise: found, known: true}
		return
	}
	switch {
	case s.failures > 0: // said already
	case s.IP.IsValid():
		log.Warn("the address to advertise is not found any more, the last one stays in force", "address", describe(s.Advertise), "reason", found.Reason)
	default:
		log.Warn("no address to advertise is found, trying again", "reason", found.Reason)
	}
	s.trouble = found.Reason
	s.due = time.Now().Add(retryDelay(s.failures))
	s.failures++
	if !s.IP.IsValid() {
		s.Advertise = found
	}
}

func (s *standing) String() string {
	if s.IP.IsValid() && s.trouble != "" {
		return fmt.Sprintf("%s, the last one that was found: %s", describe(s.Advertise), s.trouble)
	}
	return describe(s.Advertise)
}

func describe(a Advertise) string {
	if !a.IP.IsValid() {
		return "none: " + a.Reason
	}
	return fmt.Sprintf("%s (%s)", a.IP, a.Origin)
}

// lookup asks for the address; the answer comes as a result, because a resolver may take its time while a
// container gets its stop signal.
func (f *follower) lookup(ctx context.Context, wg *sync.WaitGroup) {
	if f.looking {
		return
	}
	f.looking = true
	wg.Go(func() {
		lookupCtx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		found := f.opts.Advertise(lookupCtx)
		f.deliver(ctx, result{found: &found})
	})
}
