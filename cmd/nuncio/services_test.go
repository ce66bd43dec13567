package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// With the shipped templates a service comes, gets a route and a health check, moves, goes and comes back. HAProxy 3.4 takes that
// without a reload; with earlier ones only the new section costs one.
func TestAServiceComesAndGoesWithTheShippedTemplates(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		e := newEnv(t, h, "--reload-interval=10ms")
		e.shipped("metrics.bind=off")
		e.put("web/a", e.webs[0].Addr)
		e.start()
		e.answers("web0")
		load := testkit.StartLoad("http://" + e.http + "/")
		record := func(web int, meta string) string {
			host, port, _ := strings.Cut(e.webs[web].Addr, ":")
			return fmt.Sprintf(`{"host":%q,"port":%s,"meta":{"http.host":"shop.example.com"%s}}`, host, port, meta)
		}
		rounds := 1
		if h.AtLeast("3.4") {
			rounds = 3
		}
		for range rounds {
			e.put("shop/a", record(1, ""))
			e.shopAnswers("web1")
			e.put("shop/a", record(2, ""))
			e.shopAnswers("web2")
			e.del("shop/a")
			e.shopAnswers("web0")
			// It comes back with a health check, which the map has before the check begins.
			e.put("shop/a", record(3, `,"check.path":"/health"`))
			e.shopAnswers("web3")
			e.del("shop/a")
			e.shopAnswers("web0")
		}
		if r := load.Stop(); r.Failed > 0 || r.Done < 20 {
			t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Failed+r.Done, r.First)
		}
		_, text, err := e.fetch("http://"+e.admin+"/metrics", "")
		if err != nil {
			t.Fatal(err)
		}
		reloaded := ""
		for line := range strings.Lines(text) {
			if number, ok := strings.CutPrefix(line, `nuncio_applies_total{result="reloaded"} `); ok {
				reloaded = strings.TrimSpace(number)
			}
		}
		if none := reloaded == "0"; none != h.AtLeast("3.4") {
			t.Errorf("HAProxy was reloaded %q times", reloaded)
		}
	})
}

// shopAnswers waits until a request for the shop's host is answered by a web server.
func (e *env) shopAnswers(want string) {
	e.t.Helper()
	const host = "shop.example.com"
	testkit.Eventually(e.t, 60*time.Second, func() error {
		status, body, err := e.fetch("http://"+e.http+"/", host)
		if err == nil && (status != http.StatusOK || !strings.HasPrefix(body, want)) {
			err = fmt.Errorf("%s: %d %.80q, want %q", host, status, body, want)
		}
		return err
	})
}

// fetch requests a page, of a host of its own if host is given.
func (e *env) fetch(url, host string) (status int, body string, err error) {
	req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	req.Host = host
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// "nuncio check" says which sections need a reload to come or go, where the HAProxy could do without.
func TestCheckNamesSectionsThatNeedAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		dir := t.TempDir()
		records := filepath.Join(dir, "records.yaml")
		for path, text := range map[string]string{
			records:                                "{web/a: 192.0.2.7:80, b/a: 192.0.2.7:80, c/a: 192.0.2.7:80, d/a: 192.0.2.7:80}\n",
			filepath.Join(dir, "haproxy.cfg.tmpl"): aTemplate,
		} {
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		check := func(more ...string) string {
			out, err := exec.Command("nuncio", append([]string{"check", "--records=" + records, "--haproxy=" + h.Path}, more...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return string(out)
		}
		if out := check("--set=http.bind=127.0.0.1:80"); !strings.Contains(out, "HAProxy accepts") || strings.Contains(out, "reload") {
			t.Errorf("the shipped templates: %s", out)
		}
		const named = "A reload is needed when b, c, d, 1 more comes or goes: "
		if out := check("--templates="+dir, "--set=http=127.0.0.1:80"); strings.Contains(out, named) != h.AtLeast("3.4") {
			t.Errorf("a template without profiles: %s", out)
		}
	})
}
