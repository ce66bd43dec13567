package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"sigs.k8s.io/yaml"

	"nuncio/internal/cli"
	"nuncio/internal/testkit"
)

// metricsOf builds a daemon without running it and returns the help texts of its metrics.
func metricsOf(t *testing.T) map[string]string {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + testkit.FreeAddr(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	var log cli.Log
	log.LogFormat, log.LogLevel = "text", "error"
	c := &runCmd{Log: log, StateDir: t.TempDir(), HAProxy: "haproxy", AdminListen: "127.0.0.1:0"}
	c.Prefix = "/services/"
	d, err := c.build(log.Logger(io.Discard), client, &streams{out: io.Discard, err: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	defer d.admin.Close()
	d.statusServer(c)
	return testkit.MetricHelp(t, d.registry)
}

// TestGoldenMetrics keeps docs/metrics.md equal to the program. A name that changes breaks dashboards elsewhere.
func TestGoldenMetrics(t *testing.T) {
	have := metricsOf(t)
	path := filepath.Join(testkit.Root(), "docs/metrics.md")
	want := "# Metrics of nuncio\n\nMade from the program by `make golden`; a test compares the two. Names are kept from version to\n" +
		"version. Besides these, `/metrics` has those of Go and of the process. Those of the registrar are in\n" +
		"docs/registrar.md.\n\n" + testkit.MetricTable(t, have)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("docs/metrics.md is not what the program has (make golden writes it again); it should be:\n%s", want)
	}
}

var metricName = regexp.MustCompile(`\b(?:nuncio|haproxy)_[a-z_]+`)

// metricsOfHAProxy returns the names that every HAProxy of this machine has, from the exporter that the shipped template uses.
func metricsOfHAProxy(t *testing.T) map[string]string {
	t.Helper()
	counted, programs := map[string]int{}, testkit.HAProxies(t)
	for _, h := range programs {
		dir, addr := t.TempDir(), testkit.FreeAddr(t)
		config := "defaults\n mode http\n timeout connect 1s\n timeout client 5s\n timeout server 5s\nfrontend m\n bind " + addr +
			"\n http-request use-service prometheus-exporter\nbackend web\n server a 127.0.0.1:1 check\n"
		if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Start(t, dir, addr)
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (haproxy_\w+)`).FindAllStringSubmatch(string(text), -1) {
			counted[m[1]]++
		}
	}
	all := map[string]string{}
	for name, n := range counted {
		if n == len(programs) {
			all[name] = ""
		}
	}
	return all
}

// checkNames fails the test if text names a metric that does not exist, and returns the number of names.
func checkNames(t *testing.T, where, text string, metrics map[string]string) (found int) {
	t.Helper()
	for _, name := range metricName.FindAllString(text, -1) {
		found++
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if _, there := metrics[strings.TrimSuffix(name, suffix)]; there {
				base = strings.TrimSuffix(name, suffix)
			}
		}
		if _, there := metrics[base]; !there {
			t.Errorf("%s names %s: there is no such metric", where, name)
		}
	}
	return found
}

func TestMonitoringNamesExistingMetrics(t *testing.T) {
	metrics, dir := metricsOf(t), filepath.Join(testkit.Root(), "deploy/monitoring")
	maps.Copy(metrics, metricsOfHAProxy(t))
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Expr        string
				Annotations map[string]string
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.UnmarshalStrict(text, &rules, yaml.DisallowUnknownFields); err != nil && !strings.Contains(err.Error(), "unknown field") {
		t.Fatal(err)
	}
	operations, err := os.ReadFile(filepath.Join(testkit.Root(), "docs/operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules.Groups[0].Rules {
		if !strings.Contains(rule.Expr, "up{") && checkNames(t, "alert "+rule.Alert, rule.Expr, metrics) == 0 {
			t.Errorf("alert %s: no metric in %q", rule.Alert, rule.Expr)
		}
		if !bytes.Contains(operations, []byte("\n### "+rule.Alert+"\n")) {
			t.Errorf("alert %s: docs/operations.md has no section of that name", rule.Alert)
		}
		if want := "docs/operations.md#" + strings.ToLower(rule.Alert); rule.Annotations["runbook"] != want {
			t.Errorf("alert %s: runbook %q, want %q", rule.Alert, rule.Annotations["runbook"], want)
		}
	}
	text, err = os.ReadFile(filepath.Join(dir, "grafana-nuncio.json"))
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil || len(board.Panels) == 0 {
		t.Fatalf("dashboard: %d panels, %v", len(board.Panels), err)
	}
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			if checkNames(t, "panel "+panel.Title, target.Expr, metrics) == 0 {
				t.Errorf("panel %s: no metric in %q", panel.Title, target.Expr)
			}
		}
	}
	checkNames(t, "docs/operations.md", string(operations), metrics)
}

// TestPromtoolAcceptsRules runs Prometheus's own checker on the alert rules, and on the dashboard's expressions as rules.
func TestPromtoolAcceptsRules(t *testing.T) {
	promtool := testkit.Promtool(t)
	dir := filepath.Join(testkit.Root(), "deploy/monitoring")
	if out, err := exec.Command(promtool, "check", "rules", filepath.Join(dir, "alerts.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	if out, err := exec.Command(promtool, "test", "rules", "testdata/alerts_test.yml").CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "grafana-nuncio.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	rules.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, m := range regexp.MustCompile(`"expr": (".*")`).FindAllStringSubmatch(string(text), -1) {
		var expr string
		if err := json.Unmarshal([]byte(m[1]), &expr); err != nil {
			t.Fatal(err)
		}
		expr = strings.NewReplacer("$__rate_interval", "5m", "$__interval", "1m", "$instance", ".*").Replace(expr)
		quoted, err := json.Marshal(expr)
		if err != nil {
			t.Fatal(err)
		}
		rules.WriteString("  - {record: 'p" + string(rune('a'+i%26)) + strings.Repeat("x", i/26) + "', expr: " + string(quoted) + "}\n")
	}
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(promtool, "check", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("promtool on the dashboard's expressions: %v\n%s\n%s", err, out, rules.String())
	}
}
