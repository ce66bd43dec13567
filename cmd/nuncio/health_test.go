package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// TestAnInstanceKnownDeadGetsNothing has the shipped templates reload HAProxy for an unrelated service, under load.
func TestAnInstanceKnownDeadGetsNothing(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	for _, h := range []testkit.HAProxy{all[0], all[len(all)-1]} {
		t.Run("haproxy-"+h.Version, func(t *testing.T) {
			t.Parallel()
			l := newLabels(t, h, "")
			var served atomic.Int64
			sick := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/health" {
					w.WriteHeader(http.StatusInternalServerError)
					return
				}
				served.Add(1)
			}))
			t.Cleanup(sick.Close)
			l.start()
			l.instance("web/well", l.server("well"), "http.host", "www.example.com", "check.path", "/health")
			l.instance("web/sick", sick.Listener.Addr().String(), "http.host", "www.example.com", "check.path", "/health")
			testkit.Eventually(t, 30*time.Second, func() error {
				page, err := testkit.Get("http://" + l.admin + "/v1/services?q=web/sick+down")
				if err == nil && !strings.Contains(page, `"found":1`) && !strings.Contains(page, `"found": 1`) {
					err = fmt.Errorf("the sick instance is not down: %.300s", page)
				}
				return err
			})
			before, reloads := served.Load(), l.reloads()
			quit, asked := make(chan struct{}), make(chan int)
			go func() {
				for n := 0; ; n++ {
					select {
					case <-quit:
						asked <- n
						return
					default:
						if a, err := l.get("www.example.com", "/"); err != nil || a.status != 200 {
							t.Errorf("request %d: %s, %v", n, a, err)
						}
					}
				}
			}()
			_, port, _ := net.SplitHostPort(testkit.FreeAddr(t))
			l.service("other", "tcp.port", port) // a listener is a reload with every version
			l.inStep()
			time.Sleep(500 * time.Millisecond) // much less than three failed checks take
			close(quit)
			n := <-asked
			if l.reloads() == reloads || n < 20 {
				t.Errorf("%d reloads and %d requests prove nothing", l.reloads()-reloads, n)
			}
			if got := served.Load() - before; got != 0 {
				t.Errorf("%d of %d requests went to an instance that was known to be dead", got, n)
			}
		})
	}
}
