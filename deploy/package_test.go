package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"nuncio/internal/testkit"
)

// TestThePackageInstallsUpgradesAndLeaves does with the .deb what docs/deploy.md says, on a machine with a real systemd:
// installing enables nothing, an upgrade loses no request, and after a purge nothing is left. The same commit makes the same
// bytes.
func TestThePackageInstallsUpgradesAndLeaves(t *testing.T) {
	t.Parallel()
	tool(t, "dpkg-deb", "dpkg")
	dist := t.TempDir()
	old, next := buildPackage(t, dist, "v0.0.1"), buildPackage(t, dist, "v0.0.2")
	first, err := os.ReadFile(next)
	if err != nil {
		t.Fatal(err)
	}
	buildPackage(t, dist, "v0.0.2")
	if again, err := os.ReadFile(next); err != nil || string(again) != string(first) {
		t.Errorf("the package built again has other bytes, %v", err)
	}

	m := startMachine(t, map[string]string{"srv/templates/haproxy.cfg.tmpl": pageTemplate})
	sh := func(script string) string {
		t.Helper()
		out, err := m.exec("sh", "-ec", script)
		if err != nil {
			t.Fatalf("%s: %v", script, err)
		}
		return out
	}
	sh("rm /usr/local/bin/nuncio; mkdir /dist")
	m.docker.run("cp", old, m.name+":/dist/old.deb")
	m.docker.run("cp", next, m.name+":/dist/new.deb")

	sh("dpkg -i /dist/old.deb")
	for _, unit := range []string{"nuncio", "nuncio-registrar"} {
		if state, _ := m.exec("systemctl", "is-enabled", unit); state != "disabled" && state != "" {
			t.Errorf("installing has made %s %q, want disabled", unit, state)
		}
		if _, err := m.exec("systemctl", "is-active", unit); err == nil {
			t.Errorf("installing has started %s", unit)
		}
	}
	sh(`cat >>/etc/nuncio/nuncio.env <<END
NUNCIO_EMBEDDED_ETCD=/var/lib/nuncio/etcd
NUNCIO_TEMPLATES=/srv/templates
END
systemctl enable --now nuncio`)
	load := testkit.StartLoad("http://" + m.inspect("{{.NetworkSettings.IPAddress}}") + "/")
	haproxy := m.haproxy()
	// With a terminal, as an operator has one.
	out := sh("script -qec 'dpkg -i /dist/new.deb' /dev/null; nuncio --version; nuncio status")
	if !strings.Contains(out, "nuncio v0.0.2") || !strings.Contains(out, "running, ready") || strings.Contains(out, "goroutine") {
		t.Errorf("after the upgrade:\n%s", out)
	}
	if pid := m.haproxy(); pid != haproxy {
		t.Errorf("the upgrade has made HAProxy %s of %s", pid, haproxy)
	}
	if r := load.Stop(); r.Failed != 0 || r.Done == 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Done+r.Failed, r.First)
	}
	sh("dpkg -r nuncio; grep -q EMBEDDED /etc/nuncio/nuncio.env")
	if left, err := m.exec("pgrep", "-x", "haproxy|nuncio"); err == nil {
		t.Errorf("removed, and it runs: %s", left)
	}
	sh("dpkg -P nuncio")
	if left, _ := m.exec("sh", "-c", "ls -d /etc/nuncio /var/lib/nuncio /var/lib/private/nuncio /usr/bin/nuncio* /usr/share/doc/nuncio 2>/dev/null"); left != "" {
		t.Errorf("purging leaves %s", left)
	}
}

// buildPackage returns the path of the .deb for this machine.
func buildPackage(t *testing.T, dist, version string) string {
	t.Helper()
	build := exec.Command("scripts/packages")
	build.Dir = testkit.Root()
	build.Env = append(os.Environ(), "VERSION="+version, "ARCHES=amd64", "KINDS=deb", "DIST="+dist)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("packages: %v\n%s", err, out)
	}
	path := filepath.Join(dist, "nuncio_"+strings.TrimPrefix(version, "v")+"-1_amd64.deb")
	if out, err := exec.Command("dpkg-deb", "-f", path, "Version").CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != strings.TrimPrefix(version, "v")+"-1" {
		t.Fatalf("%s: %v\n%s", path, err, out)
	}
	return path
}
