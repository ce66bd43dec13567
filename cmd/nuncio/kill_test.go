package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// TestKilledAtRandom kills nuncio at random moments of a start or an apply, every second time together with its HAProxy, as the
// end of a container does. A start without etcd must then serve what is on disk, or what HAProxy runs: the old files or the new
// ones. reload tests a crash at each single step. NUNCIO_TEST_KILLS is the number of kills.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	kills := 6
	if text := os.Getenv("NUNCIO_TEST_KILLS"); text != "" {
		var err error
		if kills, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	h := testkit.OneHAProxy(t)
	e := newEnv(t, h, "--start-wait=1ms")
	e.put("web/a", e.webs[0].Addr)
	e.start()
	testkit.Eventually(t, 60*time.Second, func() error { _, err := e.get(); return err })
	counts := map[string]int{}
	for i := range kills {
		// A new template each time, so that it is an apply by files, check and reload.
		e.template(aTemplate + fmt.Sprintf("# edit %d\n", i))
		e.put("web/a", e.webs[(i+1)%2].Addr)
		time.Sleep(time.Duration(rand.IntN(600)) * time.Millisecond)
		e.kill()
		if i%2 == 0 {
			testkit.KillHAProxyOf(t, e.state)
			if body, err := e.get(); err == nil {
				t.Fatalf("kill %d: a haproxy still answers %q", i, body)
			}
		} else if _, err := e.get(); err != nil {
			t.Errorf("kill %d: HAProxy has ended with nuncio: %v", i, err)
		}
		e.proxy.Cut()
		e.start()
		var body string
		testkit.Eventually(t, 30*time.Second, func() (err error) { body, err = e.get(); return err })
		switch body {
		case fmt.Sprintf("web%d", i%2):
			counts["old"]++
		case fmt.Sprintf("web%d", (i+1)%2):
			counts["new"]++
		default:
			t.Fatalf("kill %d: %q serves, neither old nor new", i, body)
		}
		e.stop()
		e.proxy.Join()
		// When etcd is back, the new one must serve.
		e.start()
		testkit.Eventually(t, 60*time.Second, func() error {
			got, err := e.get()
			if want := fmt.Sprintf("web%d", (i+1)%2); err == nil && got != want {
				err = fmt.Errorf("%q serves, want %q", got, want)
			}
			return err
		})
	}
	t.Logf("%d kills: %v", kills, counts)
}
