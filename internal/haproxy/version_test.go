package haproxy_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nuncio/internal/haproxy"
	"nuncio/internal/testkit"
)

func TestVersionOfTheRealPrograms(t *testing.T) {
	testkit.EachHAProxy(t, func(t *testing.T, h testkit.HAProxy) {
		v, err := haproxy.ReadVersion(t.Context(), h.Path, nil)
		if err != nil || !strings.HasPrefix(v.String(), h.Version+".") || !v.AtLeast(2, 6) || v.AtLeast(3, 9) {
			t.Errorf("got %+v, %v", v, err)
		}
	})
}

func TestVersionNamesWhatIsWrongWithTheProgram(t *testing.T) {
	dir := t.TempDir()
	script := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ name, path, want string }{
		{"not there", filepath.Join(dir, "none"), "does not exist"},
		{"not in PATH", "no-such-haproxy", "executable file not found"},
		{"not executable", script("plain", "#!/bin/sh\n", 0o600), "is not executable"},
		{"another program", script("other", "#!/bin/sh\necho nginx 1.2\n", 0o700), `not HAProxy: its output for -v begins with "nginx 1.2"`},
		{"too old", script("old", "#!/bin/sh\necho HA-Proxy version 1.8.4-1deb90d 2018/02/08\n", 0o700), "1.8.4-1deb90d is too old"},
		{"exits with an error", script("bad", "#!/bin/sh\nexit 1\n", 0o700), "ask for its version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := haproxy.ReadVersion(context.Background(), c.path, nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("got %v, want %q and the path in it", err, c.want)
			}
		})
	}
}

func TestVersionsCompareByNumberNotByText(t *testing.T) {
	v, err := haproxy.ParseVersion([]byte("HAProxy version 2.10.1-dev3 2030/01/01\n"))
	if err != nil || !v.AtLeast(2, 7) || !v.AtLeast(2, 10) || v.AtLeast(2, 11) || v.AtLeast(3, 0) || !v.AtLeast(1, 99) {
		t.Errorf("got %+v, %v", v, err)
	}
}
