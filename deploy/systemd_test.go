package deploy_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// systemdImage is Debian with a systemd that can run as PID 1 of a container, HAProxy and what the test needs.
const systemdImage = `FROM debian:trixie-slim
RUN apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install systemd-sysv dbus haproxy procps >/dev/null \
    && systemctl disable haproxy && rm -rf /var/lib/apt/lists/*
RUN printf '%s\n' '#!/bin/sh' 'for m in $(awk "\$3 ~ /^cgroup/ {print \$2}" /proc/mounts); do mount -o remount,bind,rw $m; done' \
    'systemd-machine-id-setup' 'exec /sbin/init' >/boot.sh && chmod +x /boot.sh
STOPSIGNAL SIGRTMIN+3
CMD ["/boot.sh"]
`

// systemdFlags let systemd manage the container's own cgroups, mounts and devices. --privileged does not work in every sandbox.
var systemdFlags = []string{
	"--cgroupns=private", "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
	"--security-opt", "apparmor=unconfined", "--security-opt", "systempaths=unconfined", "--device-cgroup-rule", "a *:* rwm",
	"--tmpfs", "/run:exec", "--tmpfs", "/run/lock",
}

// pageTemplate makes HAProxy answer every request itself.
const pageTemplate = "defaults\n\tmode http\n\ttimeout client 30s\n\ttimeout http-keep-alive 2s\n\toption idle-close-on-response\n" +
	"frontend f\n\tbind :80\n\thttp-request return status 200 content-type text/plain string page\n"

// machine is a container in which systemd runs the shipped unit.
type machine struct{ *container }

func startMachine(t *testing.T, files map[string]string) machine {
	t.Helper()
	d := newDocker(t)
	images(t) // the base image is there then
	build := exec.Command("docker", "build", "-q", "-t", imagePrefix+"/systemd:test", "-")
	build.Stdin = strings.NewReader(systemdImage)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	m := machine{&container{d, d.id + "-machine"}}
	d.run(append(append([]string{"create", "--name", m.name, "--label", ownerLabel + "=" + testkit.Owner()}, systemdFlags...), imagePrefix+"/systemd:test")...)
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := m.exec("journalctl", "-u", "nuncio", "--no-pager", "-o", "cat")
			lines := strings.Split(out, "\n")
			t.Logf("journal:\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		if _, err := d.try("rm", "-fv", m.name); err != nil {
			t.Error(err)
		}
	})
	d.run("cp", testkit.Program(t, "nuncio"), m.name+":/usr/local/bin/nuncio")
	for path, text := range files {
		local := filepath.Join(t.TempDir(), filepath.Base(path))
		if err := os.WriteFile(local, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(local, filepath.Join(dir, path)); err != nil {
			t.Fatal(err)
		}
		d.run("cp", dir+"/.", m.name+":/")
	}
	m.start()
	var state string
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		state, err = m.exec("systemctl", "is-system-running")
		if state == "running" || strings.Contains(fmt.Sprint(err), "degraded") {
			return m
		}
	}
	if os.Getenv("NUNCIO_TEST_STRICT") == "1" {
		t.Fatalf("systemd does not start in a container of this engine: %q, %v", state, err)
	}
	t.Skipf("systemd does not start in a container of this engine: %q, %v", state, err)
	return m
}

// systemctl runs a command for the unit and fails the test when that fails.
func (m machine) systemctl(args ...string) string {
	m.docker.t.Helper()
	out, err := m.exec(append(append([]string{"systemctl"}, args...), "nuncio")...)
	if err != nil {
		m.docker.t.Fatal(err)
	}
	return out
}

// restarted waits until systemd has started nuncio again, and HAProxy is still the one of before.
func (m machine) restarted(what, before, haproxy string) (pid string) {
	t := m.docker.t
	t.Helper()
	testkit.Eventually(t, patience, func() error {
		pid = m.systemctl("show", "--value", "-p", "MainPID")
		if state := m.systemctl("show", "--value", "-p", "SubState"); state != "running" || pid == before || pid == "0" {
			return fmt.Errorf("%s: nuncio is %s, pid %s after %s", what, state, pid, before)
		}
		return nil
	})
	if now := m.haproxy(); now != haproxy {
		t.Errorf("%s: HAProxy is %s instead of %s", what, now, haproxy)
	}
	return pid
}

// haproxy names the master and its workers.
func (m machine) haproxy() string {
	m.docker.t.Helper()
	out, err := m.exec("pgrep", "-x", "haproxy")
	if err != nil {
		m.docker.t.Error(err)
	}
	return strings.ReplaceAll(out, "\n", " ")
}

// TestTheUnitKeepsHAProxy runs the shipped unit under a real systemd. A crash, the watchdog and an upgrade lose no request and leave
// HAProxy alone; systemctl stop ends it.
func TestTheUnitKeepsHAProxy(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("systemd/nuncio.service")
	if err != nil {
		t.Fatal(err)
	}
	m := startMachine(t, map[string]string{
		"etc/systemd/system/nuncio.service":             string(unit),
		"etc/systemd/system/nuncio.service.d/test.conf": "[Service]\nWatchdogSec=3s\n",
		"etc/nuncio/nuncio.env":                         "NUNCIO_EMBEDDED_ETCD=/var/lib/nuncio/etcd\nNUNCIO_TEMPLATES=/etc/nuncio/templates\n",
		"etc/nuncio/templates/haproxy.cfg.tmpl":         pageTemplate,
	})
	m.systemctl("start")
	address := m.inspect("{{.NetworkSettings.IPAddress}}")
	url := "http://" + address + "/"
	load := testkit.StartLoad(url)
	haproxy, pid := m.haproxy(), m.systemctl("show", "--value", "-p", "MainPID")
	m.systemctl("kill", "--kill-whom=main", "-s", "KILL")
	pid = m.restarted("killed", pid, haproxy)
	m.systemctl("kill", "--kill-whom=main", "-s", "STOP")
	m.restarted("hung", pid, haproxy)
	if out, err := m.exec("nuncio", "upgrade"); err != nil || !strings.Contains(out, "HAProxy was not touched") || m.haproxy() != haproxy {
		t.Errorf("upgrade: %s, %v", out, err)
	}
	if state := m.systemctl("show", "--value", "-p", "SubState"); state != "running" {
		t.Errorf("after the upgrade the unit is %s", state)
	}
	if r := load.Stop(); r.Failed != 0 || r.Done == 0 {
		t.Errorf("%d of %d requests failed, the first with: %v", r.Failed, r.Done+r.Failed, r.First)
	} else {
		t.Logf("%d requests, none failed", r.Done)
	}
	m.systemctl("stop")
	if body, err := testkit.Get(url); err == nil {
		t.Errorf("after systemctl stop HAProxy answers %q", body)
	}
	if left, err := m.exec("pgrep", "-x", "haproxy"); err == nil {
		t.Errorf("after systemctl stop: %s", left)
	}
}
