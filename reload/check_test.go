package reload_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
	"nuncio/reload"
)

func TestCheckReportsWhatIsWrong(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
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
				var rejected *reload.CheckError
				switch {
				case c.want == "" && err != nil:
					t.Errorf("rejected: %v", err)
				case c.want != "" && (!errors.As(err, &rejected) || !strings.Contains(err.Error(), c.want)):
					t.Errorf("got %v, want %q", err, c.want)
				case rejected != nil && strings.Contains(rejected.Reason+rejected.Output, os.TempDir()):
					t.Errorf("the scratch directory shows: %s", rejected.Output)
				}
			})
		}
	})
}

func TestCheckWithoutAProgramGivesNoVerdict(t *testing.T) {
	t.Parallel()
	err := reload.Check(t.Context(), "/no/such/haproxy", config("127.0.0.1:1", "x"))
	if rejected := (*reload.CheckError)(nil); err == nil || errors.As(err, &rejected) {
		t.Errorf("got %v; the files are not to blame", err)
	}
}

func TestNewRejectsAStateDirectoryWithALongPath(t *testing.T) {
	t.Parallel()
	_, err := reload.New(reload.Options{StateDir: "/" + strings.Repeat("d", 100)})
	if err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("got %v", err)
	}
	if _, err := reload.New(reload.Options{StateDir: "/" + strings.Repeat("d", 100), RunDir: "/run/n"}); err != nil {
		t.Errorf("with a short directory for the sockets: %v", err)
	}
}

// HAProxy 2.6 looks up a map of use_backend from its working directory, not below default-path: a check with a different working
// directory would pass what no reload can load.
func TestWhatTheCheckPassesCanBeLoaded(t *testing.T) {
	t.Parallel()
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		t.Parallel()
		addr := testkit.FreeAddr(t)
		r := start(t, h, reload.Options{})
		r.applied(config(addr, "one"), 1)
		next := files(map[string]string{"ports.map": "80 web\n", "haproxy.cfg": head + `
frontend front
    mode tcp
    bind ` + addr + `
    use_backend %[dst_port,map_str(ports.map)]
backend web
    mode tcp
`})
		_, err := r.Apply(t.Context(), reload.Desired{Files: next, Revision: 2})
		if rejected := (*reload.CheckError)(nil); err != nil && !errors.As(err, &rejected) {
			t.Errorf("got %v, want that the check rejects what cannot be loaded", err)
		}
	})
}
