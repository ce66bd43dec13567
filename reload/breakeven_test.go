package reload_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// TestBreakEven measures when a batch of commands costs as much as a reload; the constants of the planner and docs/performance.md have the
// figures. It is a measurement: BREAK_EVEN=1 runs it.
func TestBreakEven(t *testing.T) {
	if os.Getenv("BREAK_EVEN") == "" {
		t.Skip("a measurement: BREAK_EVEN=1")
	}
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		for _, fleet := range []int{100, 10000} {
			for _, more := range []int{300, 1000, 3000} {
				addr := testkit.FreeAddr(t)
				conf := func(extra, weight int, note string) haproxy.Files {
					text := strings.Builder{}
					fmt.Fprintf(&text, "%sfrontend f\n bind %s\n http-response set-header x-note %s\n default_backend b0\n", head, addr, note)
					for b := range fleet / 100 {
						fmt.Fprintf(&text, "backend b%d\n balance leastconn\n", b)
						for s := range 100 {
							fmt.Fprintf(&text, " server s%d 127.0.0.1:%d id %d weight %d\n", s, 1+s, 1+s, weight)
						}
						for s := b; s < extra; s += fleet / 100 {
							fmt.Fprintf(&text, " server n%d 127.0.0.1:%d id %d\n", s, 1+s, 1001+s)
						}
					}
					return cfg(text.String())
				}
				r := start(t, h, reload.Options{}, func(m *reload.Manager) { m.SetAnySize() })
				r.applied(conf(0, 1, "x"), 1)
				added := last(r.applied(conf(more, 1, "x"), 2))
				heavier := last(r.applied(conf(more, 2, "x"), 3))
				reloaded := last(r.applied(conf(more, 2, "y"), 4))
				t.Logf("fleet %d: %d adds %v, %d weights %v; the whole apply of a reload %v (%s %s %s)", fleet, more, added.Duration,
					fleet, heavier.Duration, reloaded.Duration, added.Mode, heavier.Mode, reloaded.Mode)
				if added.Mode != reload.ModeRuntime {
					t.Log(added.Reason)
				}
				if err := r.end(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
