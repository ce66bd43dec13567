package testkit

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

var metricDescription = regexp.MustCompile(`Desc\{fqName: "([^"]+)", help: "([^"]*)"`)

// MetricHelp returns the help texts of the metrics named nuncio_… by name.
func MetricHelp(t *testing.T, from prometheus.Collector) map[string]string {
	t.Helper()
	descriptions := make(chan *prometheus.Desc)
	go func() {
		from.Describe(descriptions)
		close(descriptions)
	}()
	metrics := map[string]string{}
	for desc := range descriptions {
		m := metricDescription.FindStringSubmatch(desc.String())
		if m == nil {
			t.Fatalf("description of a metric in an unknown form: %s", desc)
		}
		if strings.HasPrefix(m[1], "nuncio_") {
			metrics[m[1]] = m[2]
		}
	}
	return metrics
}

// MetricTable returns metrics as a table in Markdown. It fails the test for a help text that is not a sentence.
func MetricTable(t *testing.T, metrics map[string]string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| metric | meaning |\n| --- | --- |\n")
	for _, name := range slices.Sorted(maps.Keys(metrics)) {
		help := metrics[name]
		if len(help) < 10 || !strings.HasSuffix(help, ".") {
			t.Errorf("metric %s: help %q, want a sentence", name, help)
		}
		fmt.Fprintf(&b, "| `%s` | %s |\n", name, help)
	}
	return b.String()
}
