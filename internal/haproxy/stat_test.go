package haproxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

func TestStatOfARealHAProxy(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		dir, front, closed := t.TempDir(), testkit.FreeAddr(t), testkit.FreeAddr(t)
		socket := filepath.Join(dir, "s")
		config := fmt.Sprintf(`global
	stats socket %s level admin
defaults
	timeout connect 1s
	timeout client 1s
	timeout server 1s
frontend f
	bind %s
	default_backend web
backend web
	server up %s check inter 50ms
	server down %s check inter 50ms rise 1 fall 1 weight 7
	server off [::1]:3 disabled
	server plain 127.0.0.1:2
`, socket, front, front, closed)
		if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Start(t, dir, front)
		refused := "Connection refused"
		if h.AtLeast("3.4") {
			refused = "ECONNREFUSED returned by OS (Connection refused)"
		}
		want := []haproxy.ServerStat{
			{Backend: "web", Name: "up", Addr: front, Status: "UP", Weight: 1, Check: "L4OK", CheckInfo: "Layer4 check passed"},
			{Backend: "web", Name: "down", Addr: closed, Status: "DOWN", Weight: 7, Check: "L4CON", CheckInfo: refused},
			{Backend: "web", Name: "off", Addr: "[::1]:3", Status: "MAINT", Weight: 1},
			{Backend: "web", Name: "plain", Addr: "127.0.0.1:2", Status: "no check", Weight: 1},
		}
		testkit.Eventually(t, 20*time.Second, func() error {
			reply, err := haproxy.RuntimeSocket(socket, 5*time.Second).Exec(t.Context(), haproxy.ShowStat)
			if err != nil {
				return err
			}
			have, err := haproxy.ParseStat(reply.Text)
			if err != nil {
				return err
			}
			if diff := cmp.Diff(want, have, cmpopts.IgnoreFields(haproxy.ServerStat{}, "Sessions", "Total", "Changed", "Checking")); diff != "" {
				return fmt.Errorf("-want +got:\n%s", diff)
			}
			return nil
		})
	})
}

func TestStatThatAreNoTable(t *testing.T) {
	for _, text := range []string{"", "Permission denied", "# pxname,svname\nweb,a\n"} {
		if servers, err := haproxy.ParseStat(text); err == nil {
			t.Errorf("ParseStat(%q): got %v, want an error", text, servers)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	for _, seed := range []string{
		"# pxname,svname,status,weight,scur,stot,lastchg,check_status,last_chk,check_desc,addr,\nb,s,UP,100,1,2,3,* L4OK,,ok,192.0.2.1:80,\n",
		"# pxname,svname,status\nb,\"s \"\"x\"\"\",DOWN\n\nb\n", "# pxname,svname\n", "\"", "",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		servers, err := haproxy.ParseStat(text)
		if err == nil && len(servers) > strings.Count(text, "\n")+strings.Count(text, "\r") {
			t.Fatalf("%d servers in %q", len(servers), text)
		}
		for _, s := range servers {
			if strings.HasPrefix(s.Check, "* ") && !strings.Contains(text, "* * ") {
				t.Errorf("the mark of a running check is left in %+v", s)
			}
		}
	})
}
