package register

import (
	"fmt"
	"log/slog"
	"time"
)

// advertisedAddress is the address in use. It outlives failed lookups: a name that does not resolve for a moment, or
// an interface that loses its address, says nothing about a container.
type advertisedAddress struct {
	Advertise        // without an IP until a lookup has found one
	problem   string // why the last lookup failed; empty when it did not
	failures  int    // in a row
}

// update takes the answer of a lookup.
func (a *advertisedAddress) update(found Advertise, log *slog.Logger) {
	now := found.String()
	switch {
	case found.IP.IsValid() && a.failures > 0:
		log.Info("address to advertise found again", "address", now)
	case found.IP.IsValid() && a.Advertise.String() != now:
		log.Info("published ports are advertised", "address", now)
	case found.IP.IsValid() || a.failures > 0: // nothing new
	case a.IP.IsValid():
		log.Warn("address to advertise not found, keeping the last one", "address", a.Advertise.String(), "reason", found.Reason)
	default:
		log.Warn("no address to advertise found, retrying", "reason", found.Reason)
	}
	if found.IP.IsValid() {
		*a = advertisedAddress{Advertise: found}
		return
	}
	a.problem = found.Reason
	a.failures++
	if !a.IP.IsValid() {
		a.Advertise = found
	}
}

// next is the pause before the next lookup: short while no address was ever found, because no container is registered
// without one.
func (a *advertisedAddress) next(resyncInterval time.Duration) time.Duration {
	if a.IP.IsValid() {
		return resyncInterval
	}
	return min(resyncInterval, retryDelay(a.failures))
}

func (a *advertisedAddress) String() string {
	if a.IP.IsValid() && a.problem != "" {
		return fmt.Sprintf("%s, the last one that was found: %s", a.Advertise, a.problem)
	}
	return a.Advertise.String()
}

func (a Advertise) String() string {
	if !a.IP.IsValid() {
		return "none: " + a.Reason
	}
	return fmt.Sprintf("%s (%s)", a.IP, a.Origin)
}
