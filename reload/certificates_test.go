package reload_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// tlsSet is a configuration with a directory of certificates, a crt-list, and authorities for clients.
type tlsSet struct {
	dir, list string // addresses
	content   map[string]string
}

func newTLSSet(t *testing.T, pki *testkit.PKI) *tlsSet {
	t.Helper()
	s := &tlsSet{dir: testkit.FreeAddr(t), list: testkit.FreeAddr(t)}
	s.content = map[string]string{
		"haproxy.cfg": head + `
frontend front
    bind ` + s.dir + ` ssl crt certs
    bind ` + s.list + ` ssl crt-list list.txt
    http-request return status 200 content-type text/plain string ok
`,
		"certs/a.pem": pki.Server("a.example.com"), "certs/b.pem": pki.Server("b.example.com", "*.b.example.com"),
		"other/c.pem": pki.Server("c.example.com"), "list.txt": "other/c.pem [alpn h2,http/1.1] c.example.com\n",
	}
	return s
}

func (s *tlsSet) files() haproxy.Files { return files(s.content) }

// TestCertificatesChangeWithoutAReload has certificates renewed, added and removed, in a directory and in a crt-list, while
// clients connect and requests run. In the end a reload must change nothing.
func TestCertificatesChangeWithoutAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		pki := testkit.NewPKI(t)
		s := newTLSSet(t, pki)
		r := start(t, h, reload.Options{})
		r.applied(s.files(), 1)
		worker := r.Status().WorkerPid
		serves := func(addr, name, file string) {
			t.Helper()
			serial, err := pki.Served(addr, name)
			if want := pki.Serial(s.content[file]); err != nil || serial != want {
				t.Errorf("%s: certificate %s, %v; want %s of %s", name, serial, err, want, file)
			}
		}
		revision := int64(1)
		apply := func(what string, want reload.Outcome) {
			t.Helper()
			revision++
			result, err := r.Apply(t.Context(), reload.Desired{Files: s.files(), Revision: revision})
			if err != nil || result.Outcome != want {
				t.Fatalf("%s: %+v, %v; want %s", what, result, err, want)
			}
		}

		s.content["certs/a.pem"] = pki.Server("a.example.com")
		apply("one renewed", reload.Runtime)
		serves(s.dir, "a.example.com", "certs/a.pem")
		serves(s.dir, "x.b.example.com", "certs/b.pem")

		s.content["certs/n.pem"] = pki.Server("n.example.com")
		s.content["other/d.pem"] = "\n" + strings.ReplaceAll(pki.Server("d.example.com"), "-----\n", "-----\n\n")
		s.content["list.txt"] += "# a remark\nother/d.pem [alpn http/1.1] d.example.com !no.example.com\n"
		s.content["other/c.pem"] = pki.Server("c.example.com")
		apply("two come, one is renewed", reload.Runtime)
		serves(s.dir, "n.example.com", "certs/n.pem")
		serves(s.list, "d.example.com", "other/d.pem")
		serves(s.list, "c.example.com", "other/c.pem")

		delete(s.content, "certs/b.pem")
		delete(s.content, "other/d.pem")
		s.content["list.txt"] = "other/c.pem [alpn h2,http/1.1] c.example.com\n"
		apply("two go", reload.Runtime)
		if serial, err := pki.Served(s.dir, "b.example.com"); err == nil {
			t.Errorf("b.example.com still has the certificate %s", serial)
		}
		s.content["certs/b.pem"] = pki.Server("b.example.com")
		apply("one comes back", reload.Runtime)
		serves(s.dir, "b.example.com", "certs/b.pem")

		if now := r.Status(); now.WorkerPid != worker || now.OldWorkers != 0 {
			t.Errorf("worker %d and %d old ones, want %d and none", now.WorkerPid, now.OldWorkers, worker)
		}
		delete(s.content, "certs/a.pem") // the default: a command cannot choose another
		apply("the default goes", reload.Reloaded)
		for name, file := range map[string]string{"b.example.com": "certs/b.pem", "n.example.com": "certs/n.pem"} {
			serves(s.dir, name, file)
		}
		serves(s.list, "c.example.com", "other/c.pem")
	})
}

// TestRenewalsCutNothing renews a certificate a hundred times while clients connect, keep connections and post.
func TestRenewalsCutNothing(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	for _, h := range []testkit.HAProxy{all[0], all[len(all)-1]} {
		t.Run(h.Version, func(t *testing.T) {
			t.Parallel()
			pki := testkit.NewPKI(t)
			s := newTLSSet(t, pki)
			r := start(t, h, reload.Options{})
			r.applied(s.files(), 1)
			var done, failed atomic.Int64
			var first atomic.Value
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for i := range 4 {
				transport := &http.Transport{DisableKeepAlives: i%2 == 0, TLSClientConfig: &tls.Config{RootCAs: pki.Roots(), ServerName: "a.example.com"}}
				client := &http.Client{Transport: transport, Timeout: 10 * time.Second}
				clients.Go(func() {
					defer transport.CloseIdleConnections()
					for {
						select {
						case <-stop:
							return
						default:
						}
						resp, err := client.Post("https://"+s.dir+"/", "text/plain", strings.NewReader("x"))
						if err == nil {
							var body []byte
							body, err = io.ReadAll(resp.Body)
							resp.Body.Close()
							if err == nil && string(body) != "ok" {
								err = fmt.Errorf("got %q", body)
							}
						}
						if done.Add(1); err != nil {
							failed.Add(1)
							first.CompareAndSwap(nil, err.Error())
						}
					}
				})
			}
			for n := range 100 {
				s.content["certs/a.pem"] = pki.Server("a.example.com")
				result, err := r.Apply(t.Context(), reload.Desired{Files: s.files(), Revision: int64(n + 2)})
				if err != nil || result.Outcome != reload.Runtime {
					t.Fatalf("renewal %d: %+v, %v", n, result, err)
				}
				if serial, err := pki.Served(s.dir, "a.example.com"); err != nil || serial != pki.Serial(s.content["certs/a.pem"]) {
					t.Fatalf("renewal %d: %s, %v is served", n, serial, err)
				}
			}
			close(stop)
			clients.Wait()
			if failed.Load() > 0 || done.Load() < 100 {
				t.Errorf("%d of %d requests failed; the first: %v", failed.Load(), done.Load(), first.Load())
			}
		})
	}
}

// TestAuthoritiesChangeWithoutAReload has a second authority for the certificates of clients.
func TestAuthoritiesChangeWithoutAReload(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		mine, theirs := testkit.NewPKI(t), testkit.NewPKI(t)
		s := newTLSSet(t, mine)
		s.content["haproxy.cfg"] = strings.Replace(s.content["haproxy.cfg"], "ssl crt certs", "ssl crt certs ca-file clients.pem verify required", 1)
		s.content["clients.pem"] = mine.Authority()
		r := start(t, h, reload.Options{})
		r.applied(s.files(), 1)
		request := func() error {
			text := []byte(theirs.Server("client"))
			pair, err := tls.X509KeyPair(text, text)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: mine.Roots(), ServerName: "a.example.com", Certificates: []tls.Certificate{pair}}}
			resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://" + s.dir + "/")
			if err == nil {
				resp.Body.Close()
			}
			return err
		}
		if request() == nil {
			t.Fatal("a client of another authority is let in")
		}
		s.content["clients.pem"] = mine.Authority() + theirs.Authority()
		result, err := r.Apply(t.Context(), reload.Desired{Files: s.files(), Revision: 2})
		if err != nil || result.Outcome != reload.Runtime {
			t.Fatalf("%+v, %v", result, err)
		}
		if err := request(); err != nil {
			t.Errorf("a client of the new authority: %v", err)
		}
	})
}
