package reload_test

import (
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestCheckSaysWhatIsWrong(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		addr := testkit.FreeAddr(t)
		good, _ := config(addr, "x").Get(haproxy.ConfigFile)
		text := string(good)
		for _, c := range []struct {
			name  string
			files map[string]string
			want  string // empty: accepted
		}{
			{"a good configuration", map[string]string{"haproxy.cfg": text}, ""},
			{"the word daemon, which -db makes harmless", map[string]string{"haproxy.cfg": "global\n daemon\n" + text}, ""},
			{"a default-path of the operator's own", map[string]string{"haproxy.cfg": "global\n default-path config\n" + text}, ""},
			{
				"a map beside it",
				map[string]string{"haproxy.cfg": text + " http-request set-header x %[src,map(maps/a.map)]\n", "maps/a.map": "k v\n"},
				"",
			},
			{"an unknown keyword", map[string]string{"haproxy.cfg": text + " frobnicate\n"}, "parsing [haproxy.cfg:12] : unknown keyword 'frobnicate'"},
			{"a missing map", map[string]string{"haproxy.cfg": text + " http-request set-header x %[src,map(maps/a.map)]\n"}, "maps/a.map"},
			{"no main file", map[string]string{"other.cfg": text}, "no haproxy.cfg among the files"},
			{"an empty file", map[string]string{"haproxy.cfg": ""}, "is empty"},
			{"only comments", map[string]string{"haproxy.cfg": "# nothing\n"}, "is empty"},
			{"no listener", map[string]string{"haproxy.cfg": "global\n maxconn 10\n"}, "no bind line"},
			{"no newline at the end", map[string]string{"haproxy.cfg": text + "# x"}, "does not end in a newline"},
			{"an open quote", map[string]string{"haproxy.cfg": text + " acl a path \"x\n"}, "haproxy.cfg:12"},
			{"too many words", map[string]string{"haproxy.cfg": text + " acl a path" + strings.Repeat(" x", 70) + "\n"}, "haproxy.cfg:12"},
			{"our own file name", map[string]string{"haproxy.cfg": text, "nuncio.cfg": ""}, "nuncio.cfg is nuncio's own"},
			{"reloads that would cut requests", map[string]string{"haproxy.cfg": "global\n mworker-max-reloads many\n" + text}, "mworker-max-reloads"},
		} {
			t.Run(c.name, func(t *testing.T) {
				err := reload.Check(t.Context(), h.Path, files(c.files))
				var refused *reload.CheckError
				switch {
				case c.want == "" && err != nil:
					t.Errorf("refused: %v", err)
				case c.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)):
					t.Errorf("got %v, want %q", err, c.want)
				case refused != nil && strings.Contains(refused.Reason+refused.Output, os.TempDir()):
					t.Errorf("the scratch directory shows: %s", refused.Output)
				}
			})
		}
	})
}

func TestCheckWithoutAProgramIsNoVerdict(t *testing.T) {
	err := reload.Check(t.Context(), "/no/such/haproxy", config("127.0.0.1:1", "x"))
	if refused := (*reload.CheckError)(nil); err == nil || errors.As(err, &refused) {
		t.Errorf("got %v; the files are not to blame", err)
	}
}

func TestBindAddressesThatCanBeJudged(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
	}{
		{"bind :80", []string{"0.0.0.0:80"}},
		{"bind *:80 ssl crt x", []string{"0.0.0.0:80"}},
		{"bind 127.0.0.1:80,127.0.0.2:81", []string{"127.0.0.1:80", "127.0.0.2:81"}},
		{"bind :::80 v4v6", []string{"[::]:80"}},
		{"bind [::1]:80", []string{"[::1]:80"}},
		{"bind ipv4@:80", []string{"0.0.0.0:80"}},
		{"bind ipv6@:80", []string{"[::]:80"}},
		{"bind 10.0.0.1:8000-8002", []string{"10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:8002"}},
		{`bind "127.0.0.1:80"`, []string{"127.0.0.1:80"}},
		{"bind unix@/run/x.sock", nil},
		{"bind /run/x.sock", nil},
		{"bind fd@3", nil},
		{"bind abns@x", nil},
		{"bind quic4@:443", nil},
		{"bind localhost:80", []string{"localhost:80"}},
		{"bind ipv6@my-host_1.example.com:80-81", []string{"my-host_1.example.com:80", "my-host_1.example.com:81"}},
		{"bind 10.1:80", nil},
		{"bind fe80::1%eth0:80", nil},
		{`bind '$HOST':80`, nil},
		{"bind 10.0.0.1:80 transparent", nil},
		{"bind :80 namespace blue", nil},
		{"bind :0", nil},
		{"bind :80-70", nil},
		{"bind :99999", nil},
		{"bind", nil},
		{"# bind :80", nil},
	} {
		t.Run(c.line, func(t *testing.T) {
			got := reload.BindAddresses("frontend f\n " + c.line + "\n")
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
	got := reload.BindAddresses("global\n stats socket ipv4@127.0.0.1:9999 level admin\n stats socket /x\nbackend b\n server bind :80\n")
	if diff := cmp.Diff([]string{"127.0.0.1:9999"}, got); diff != "" {
		t.Errorf("global section: %s", diff)
	}
}

func TestProbeFindsTakenAddressesOnly(t *testing.T) {
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := l.Addr().String(), testkit.FreeAddr(t)
	_, port, _ := net.SplitHostPort(taken)
	local, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	address, name := local.Addr().String(), strings.Replace(local.Addr().String(), "127.0.0.1", "ipv4@localhost", 1)
	cfg := func(bind string) string { return "frontend f\n bind " + bind + "\n" }
	for _, c := range []struct {
		name, running, next string
		ok                  bool
	}{
		{"free", "", cfg(free), true},
		{"taken", "", cfg(taken), false},
		{"taken by the running configuration", cfg(taken), cfg(taken), true},
		{"one of two is taken", "", cfg(free + "," + taken), false},
		{"the wildcard overlaps with what another process has", "", cfg(":" + port), false},
		{"not an address of this host", "", cfg("192.0.2.1:80"), false},
		{"a name whose address is taken", "", cfg(name), false},
		{"a name that the running configuration has", cfg(name), cfg(name), true},
		{"a name that the running configuration has as an address", cfg(address), cfg(name), true},
		{"an address that the running configuration has as a name", cfg(name), cfg(address), true},
		{"a name that is free", "", cfg("ipv4@localhost" + free[strings.LastIndexByte(free, ':'):]), true},
		{"a name that does not exist", "", cfg("no-such-name.invalid:" + port), true},
		{"not an address of this host, but transparent", "", cfg("192.0.2.1:80 transparent"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := reload.ProbeBinds(c.running, c.next)
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	// It must not have taken anything itself.
	l2, err := net.Listen("tcp", free)
	if err != nil {
		t.Errorf("the probe holds the address: %v", err)
	} else {
		l2.Close()
	}
}

func TestEnvironmentOfHAProxyHoldsNoSecretOfOurs(t *testing.T) {
	got := reload.ChildEnv([]string{"PATH=/bin", "NUNCIO_ETCD_PASSWORD=x", "HAPROXY_MWORKER_REEXEC=1", "HAPROXY_PROCESSES=x", "MY_HAPROXY=y"})
	if diff := cmp.Diff([]string{"RES_OPTIONS=timeout:1", "PATH=/bin", "MY_HAPROXY=y"}, got); diff != "" {
		t.Error(diff)
	}
	own := []string{"RES_OPTIONS=ndots:2"}
	if diff := cmp.Diff(own, reload.ChildEnv(own)); diff != "" {
		t.Errorf("what the operator has set: %s", diff)
	}
}

func TestNewRefusesAStateDirectoryThatIsTooDeep(t *testing.T) {
	_, err := reload.New(reload.Options{StateDir: "/" + strings.Repeat("d", 100)})
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v", err)
	}
	if _, err := reload.New(reload.Options{StateDir: "/" + strings.Repeat("d", 100), RunDir: "/run/n"}); err != nil {
		t.Errorf("with a short directory for the sockets: %v", err)
	}
}

func TestOutputIsCutIntoBoundedLines(t *testing.T) {
	got := reload.Lines("a\nb", "c\n", strings.Repeat("x", 20000), strings.Repeat("y", 20000)+"\nz\nrest", "")
	if len(got) != 4 || got[0] != "a" || got[1] != "bc" || len(got[2]) != 8<<10 || got[3] != "z" {
		t.Errorf("got %.100q", got)
	}
	if got := reload.Lines(strings.Repeat("n\n", 5000)); len(got) != 100 {
		t.Errorf("%d lines are kept", len(got))
	}
}
