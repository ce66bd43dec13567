package status_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"nuncio/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnswers(t *testing.T) {
	var report atomic.Pointer[status.Report]
	registry := prometheus.NewRegistry()
	gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "nuncio_test", Help: "A gauge."})
	registry.MustRegister(gauge)
	gauge.Set(7)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	server := status.New(status.Options{Report: func() status.Report { return *report.Load() }, Gatherer: registry})
	go func() { ended <- server.Run(ctx, l) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run after its context ended: %v, want nil", err)
		}
	}()

	for _, c := range []struct {
		name   string
		report status.Report
		method string
		path   string
		code   int
		body   string
	}{
		{"ready", status.Report{State: "running", Ready: true}, "GET", "/readyz", 200, "running\n"},
		{"not ready says why", status.Report{State: "waiting", Reasons: []string{"no snapshot from etcd yet"}}, "GET", "/readyz", 503, "waiting\nno snapshot from etcd yet\n"},
		{"degraded may still be ready", status.Report{State: "degraded", Ready: true, Reasons: []string{"refused"}}, "GET", "/readyz", 200, "degraded\nrefused\n"},
		{"waiting is healthy: a restart would not help", status.Report{State: "waiting"}, "GET", "/healthz", 200, "waiting\n"},
		{"stopped is not healthy", status.Report{State: "stopped"}, "GET", "/healthz", 503, "stopped\n"},
		{"metrics", status.Report{}, "GET", "/metrics", 200, "nuncio_test 7\n"},
		{"read-only", status.Report{}, "POST", "/readyz", 405, ""},
		{"no other page", status.Report{}, "GET", "/debug/pprof/", 404, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			report.Store(&c.report)
			req, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+l.Addr().String()+c.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Close = true
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.code || !strings.Contains(string(body), c.body) {
				t.Errorf("%s %s: got %d %q, want %d with %q", c.method, c.path, resp.StatusCode, body, c.code, c.body)
			}
		})
	}
}

func TestRunReportsAListenerThatBreaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	server := status.New(status.Options{Report: func() status.Report { return status.Report{} }, Gatherer: prometheus.NewRegistry()})
	if err := server.Run(t.Context(), l); err == nil {
		t.Error("Run on a closed listener: got nil, want an error")
	}
}
