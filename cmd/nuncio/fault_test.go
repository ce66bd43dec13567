package main

import (
	"testing"

	"nuncio/internal/testkit"
)

// TestFaults breaks what nuncio depends on, one thing per script; docs/reliability.md has the table. Half of the
// scripts would say the same of every HAProxy, so each script meets one: the oldest and the newest in turn.
func TestFaults(t *testing.T) {
	for i, h := range testkit.HAProxies(t) {
		t.Run("haproxy-"+h.Version, func(t *testing.T) {
			testkit.RunScripts(t, "testdata/faults", h, func(at int) bool { return at%len(testkit.HAProxies(t)) == i })
		})
	}
}
