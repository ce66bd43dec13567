package main_test

import (
	"fmt"
	"net/http"
	"testing"

	"nuncio/internal/testkit"
)

// TestTheAdminListenerRefusesForeignHostNames asks as a page would that lets its own name lead here (DNS rebinding).
func TestTheAdminListenerRefusesForeignHostNames(t *testing.T) {
	t.Parallel()
	s := newEnv(t)
	addr := testkit.FreeAddr(t)
	start(t, nil, "nuncio-registrar", s.run("--admin-listen="+addr, "--admin-host=registrar.example.com")...)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for host, want := range map[string]int{
		"evil.example.com":           http.StatusForbidden,
		"evil.example.com:9117":      http.StatusForbidden,
		addr:                         http.StatusOK,
		"localhost:9117":             http.StatusOK,
		"registrar.example.com:9117": http.StatusOK,
	} {
		for _, path := range []string{"/healthz", "/v1/list", "/metrics"} {
			testkit.Eventually(t, within, func() error { // until it listens
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
				if err != nil {
					return err
				}
				req.Host = host
				resp, err := client.Do(req)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				if resp.StatusCode != want {
					return fmt.Errorf("%s for %s: %s, want %d", path, host, resp.Status, want)
				}
				return nil
			})
		}
	}
}
