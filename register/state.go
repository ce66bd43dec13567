package register

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"nuncio/internal/catalog"
)

// Values of the health label: what a container's HEALTHCHECK means for its record.
const (
	HealthWait   = "wait"   // no record while it is not healthy
	HealthIgnore = "ignore" // it does not matter
	HealthMark   = "mark"   // always a record, in maint while it is not healthy
)

// stateOf combines everything that determines a record's state; the most restrictive wins. Its error is the reason why
// there is no record.
func stateOf(c *Container, s settings, port int) (state catalog.State, note, health string, err error) {
	state = catalog.StateReady
	if v, name, ok := s.get(port, keyState); ok {
		state = catalog.State(v)
		switch state {
		case catalog.StateReady:
		case catalog.StateDrain, catalog.StateMaint:
			note = fmt.Sprintf("%s=%s", name, v)
		default:
			return "", "", "", fmt.Errorf("%s=%s is not one of ready, drain, maint", name, v)
		}
	}
	restrict := func(to catalog.State, why string) {
		if state == catalog.StateReady || state == catalog.StateDrain && to == catalog.StateMaint {
			state, note = to, why
		}
	}
	if c.Stopping {
		restrict(catalog.StateDrain, "it was sent a stop signal")
	}
	if c.Status == "paused" {
		// Docker calls every paused container with a HEALTHCHECK unhealthy, because its probe cannot run.
		restrict(catalog.StateMaint, "it is paused")
		return state, note, "", nil
	}
	gate, name, _ := s.get(port, keyHealth)
	switch gate {
	case HealthIgnore:
	case "", HealthWait:
		if c.Health != "" && c.Health != "healthy" {
			return "", "", "", errors.New("its HEALTHCHECK is " + c.Health)
		}
	case HealthMark:
		health = c.Health
		if c.Health != "" && c.Health != "healthy" {
			restrict(catalog.StateMaint, "its HEALTHCHECK is "+c.Health)
		}
	default:
		return "", "", "", fmt.Errorf("%s=%s is not one of wait, ignore, mark", name, gate)
	}
	return state, note, health, nil
}

// endsContainer reports whether a signal that Docker sent is meant to end a container with this stop signal. HUP, USR1 and
// the like reload programs and are not a reason to drain.
func endsContainer(sig syscall.Signal, stopSignal string) bool {
	switch sig {
	case syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL:
		return true
	}
	return sig != 0 && sig == parseSignal(stopSignal)
}

// parseSignal parses the spellings that Docker accepts: "SIGQUIT", "QUIT", "3". It returns 0 for anything else.
func parseSignal(s string) syscall.Signal {
	if n, err := strconv.Atoi(s); err == nil {
		return syscall.Signal(n)
	}
	s = strings.ToUpper(s)
	if !strings.HasPrefix(s, "SIG") {
		s = "SIG" + s
	}
	return unix.SignalNum(s)
}

// startText formats the start of a container for its record: with the id it names one run of the container, so that the
// mark of drain does not outlive a restart.
func startText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}
