package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// HAProxy is an installed HAProxy.
type HAProxy struct {
	Version string // "2.6"
	Path    string
}

// HAProxies returns the supported HAProxies of this machine, oldest first: the one that is installed, and those that
// "make tools" unpacked. NUNCIO_TEST_HAPROXY names the program of
// a different version, which is then the only one; Debian sid has one that changes too often for "make tools".
func HAProxies(t testing.TB) []HAProxy {
	t.Helper()
	if path := os.Getenv("NUNCIO_TEST_HAPROXY"); path != "" {
		return []HAProxy{{versionOf(t, path), path}}
	}
	var found []HAProxy
	for _, version := range []string{"2.6", "3.0"} {
		if path, ok := haproxyPath(version); ok {
			found = append(found, HAProxy{version, path})
		} else {
			missing(t, "HAProxy "+version)
		}
	}
	if len(found) == 0 {
		t.Skip("no HAProxy on this machine: run make tools")
	}
	return found
}

func haproxyPath(version string) (string, bool) {
	for _, path := range []string{
		"/usr/sbin/haproxy",
		filepath.Join(Root(), "build/tools/haproxy-"+version, "root/usr/sbin/haproxy"),
	} {
		out, err := exec.Command(path, "-v").Output()
		if err == nil && strings.HasPrefix(string(out), "HAProxy version "+version+".") {
			return path, true
		}
	}
	return "", false
}

func versionOf(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.Command(path, "-v").Output()
	text, ok := strings.CutPrefix(string(out), "HAProxy version ")
	numbers := strings.SplitN(text, ".", 3)
	if err != nil || !ok || len(numbers) < 3 {
		t.Fatalf("NUNCIO_TEST_HAPROXY=%s is not HAProxy: it answers %.80q to -v, %v", path, out, err)
	}
	return numbers[0] + "." + numbers[1]
}

// EachHAProxy runs test once per supported HAProxy, as a subtest named after its version.
func EachHAProxy(t *testing.T, test func(t *testing.T, haproxy HAProxy)) {
	t.Helper()
	for _, h := range HAProxies(t) {
		t.Run("haproxy-"+h.Version, func(t *testing.T) { test(t, h) })
	}
}

// Root returns the directory of go.mod.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
		t.Fatalf("%s is missing and NUNCIO_TEST_STRICT=1: run make tools", what)
	}
	t.Logf("%s is missing: run make tools", what)
}
