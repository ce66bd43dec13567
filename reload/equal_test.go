package reload_test

import (
	"fmt"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

// Of a line that nuncio does not understand every word has to get to HAProxy all the same.
func TestChangesBehindAWordThatIsNotKnownReachHAProxy(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		unknown, lines := "set-proxy-v2-tlv-fmt(0x20) %[ssl_fc_sni]", []string{"weight 100", "weight 0", "weight 100 disabled"}
		if strings.HasPrefix(h.Version, "2.") { // has no such word, and none of its own is missing in the table
			unknown, lines = "", []string{"weight 010", "weight 000", "weight 010 disabled"}
		}
		r := start(t, h, reload.Options{})
		for i, more := range lines {
			r.applied(files(map[string]string{"haproxy.cfg": head + `
    default-server inter 1h ` + unknown + `
frontend front
    bind ` + addr + `
    default_backend web
backend web
    balance roundrobin
    server a 127.0.0.1:1 id 11 check ` + more + `
    server b 127.0.0.1:1 id 12 check weight 100
`}), int64(i+1))
			states, err := haproxy.ParseServers(r.show("show servers state web"))
			if err != nil || len(states) != 2 {
				t.Fatalf("%q: %v, %v", more, states, err)
			}
			maint := states[0].Admin&haproxy.AdminMaint != 0
			if zero := states[0].Weight == 0; zero != (i == 1) || maint != strings.HasSuffix(more, "disabled") {
				t.Errorf("%q: haproxy has weight %d, maintenance %v", more, states[0].Weight, maint)
			}
		}
	})
}

// What was asked for and what answers must be the same, whether HAProxy has just been started or not.
func TestAnOrderThatMattersReachesHAProxy(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		for _, c := range []struct{ name, balance, first, second string }{
			{"backup servers", "roundrobin", "id 11 backup", "id 12 backup"},
			{"first without ids", "first", "", ""},
			{"a static hash", "uri", "id 11", "id 12"},
		} {
			addr := testkit.FreeAddr(t)
			one, two := testkit.StartWeb(t, "one", ""), testkit.StartWeb(t, "two", "")
			a, b := fmt.Sprintf("server a %s %s\n", one.Addr, c.first), fmt.Sprintf("server b %s %s\n", two.Addr, c.second)
			set := func(servers string) haproxy.Files {
				return files(map[string]string{"haproxy.cfg": head + "frontend front\nbind " + addr + "\ndefault_backend web\nbackend web\nbalance " + c.balance + "\n" + servers})
			}
			answer := func() string {
				t.Helper()
				text, err := get(addr)
				if err != nil {
					t.Fatalf("%s: %v", c.name, err)
				}
				return text
			}
			r := start(t, h, reload.Options{})
			r.applied(set(a+b), 1)
			before := answer()
			if x := last(r.applied(set(b+a), 2)); x.Mode != reload.ModeReload || answer() == before {
				t.Errorf("%s: %s answers, as before: %+v", c.name, before, x)
			}
		}
	})
}
