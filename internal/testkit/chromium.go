package testkit

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// Chromium returns the path of the browser, or skips the test where there is none.
func Chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "Chromium")
	t.Skip("no Chromium: run make tools")
	return ""
}

// Promtool returns the path of Prometheus's checker of rules, or skips the test where there is none.
func Promtool(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath(filepath.Join(Root(), "build/tools/promtool"))
	if err == nil {
		return path
	}
	missing(t, "promtool")
	t.Skip("no promtool: run make tools")
	return ""
}
