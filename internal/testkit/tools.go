package testkit

import (
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// HAProxy is an installed HAProxy.
type HAProxy struct {
	Version string // "2.6"
	Path    string
}

// AtLeast reports whether it is version, such as "3.4", or a later one.
func (h HAProxy) AtLeast(version string) bool {
	number := func(text string) (n int) {
		major, minor, _ := strings.Cut(text, ".")
		for _, part := range []string{major, minor} {
			digit, _ := strconv.Atoi(part) // both are made of numbers
			n = 1000*n + digit
		}
		return n
	}
	return number(h.Version) >= number(version)
}

// versions are the supported versions of HAProxy, oldest first.
var versions = []string{"2.6", "3.0", "3.2", "3.4"}

// HAProxies returns the supported HAProxies of this machine, oldest first: the one that is installed, and those that
// "make tools" unpacked. NUNCIO_TEST_HAPROXY names one of their versions, or any program by its path, which is then the
// only one.
func HAProxies(t testing.TB) []HAProxy {
	t.Helper()
	only := os.Getenv("NUNCIO_TEST_HAPROXY")
	if strings.Contains(only, "/") {
		return []HAProxy{{versionOf(t, only), only}}
	}
	var found []HAProxy
	for _, version := range versions {
		if only != "" && only != version {
			continue
		}
		if path, ok := haproxyPath(version); ok {
			found = append(found, HAProxy{version, path})
		} else {
			missing(t, "HAProxy "+version)
		}
	}
	if len(found) == 0 {
		t.Skipf("no HAProxy %s on this machine: run make tools", only)
	}
	return found
}

// OneHAProxy returns the HAProxy for a test that is the same on every version. Such tests are spread over the versions: a
// test keeps the version that follows from its name.
func OneHAProxy(t testing.TB) HAProxy {
	t.Helper()
	all := HAProxies(t)
	return all[chosen(t.Name(), len(all))]
}

// chosen is a number below n that follows from a name alone.
func chosen(name string, n int) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name) // a hash takes everything
	return int(h.Sum32() % uint32(n))
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

// EachHAProxy runs test once per supported HAProxy, as a subtest named after its version. It is for what depends on the
// version; OneHAProxy is for everything else.
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
