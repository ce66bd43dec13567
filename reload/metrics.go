package reload

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics holds what is counted. Gauges are read from the published status, so that a metric and a page
// cannot disagree.
type metrics struct {
	applies  *prometheus.CounterVec
	duration *prometheus.HistogramVec
	restarts prometheus.Counter
	commands prometheus.Counter
	drifts   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, b *broadcaster) (*metrics, error) {
	m := &metrics{
		applies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nuncio_applies_total", Help: "Attempts to get a set of files into HAProxy, by result.",
		}, []string{"result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nuncio_apply_duration_seconds", Help: "Time from taking a set of files to HAProxy's confirmation, or to the failure.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 16),
		}, []string{"mode"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nuncio_haproxy_restarts_total", Help: "HAProxy restarts after it exited unexpectedly.",
		}),
		commands: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nuncio_runtime_commands_total", Help: "Commands that changed HAProxy without a reload.",
		}),
		drifts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "nuncio_drift_repairs_total", Help: "Reloads because HAProxy was found changed from outside.",
		}),
	}
	for _, r := range []Outcome{Unchanged, Started, Reloaded, Runtime, Rejected, Failed} {
		m.applies.WithLabelValues(string(r)) // a counter that is missing looks like a broken scrape
	}
	if reg == nil {
		return m, nil
	}
	errs := []error{reg.Register(m.applies), reg.Register(m.duration), reg.Register(m.restarts), reg.Register(m.commands), reg.Register(m.drifts)}
	gaugeOf := func(opts prometheus.GaugeOpts, value func(Status) float64) {
		errs = append(errs, reg.Register(prometheus.NewGaugeFunc(opts, func() float64 { return value(b.get()) })))
	}
	gauge := func(name, help string, value func(Status) float64) {
		gaugeOf(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	gauge("nuncio_desired_revision", "Revision of the store that the desired files were made from.",
		func(s Status) float64 { return float64(s.DesiredRevision) })
	gauge("nuncio_applied_revision", "Revision of the store that HAProxy's confirmed files were made from.",
		func(s Status) float64 { return float64(s.AppliedRevision) })
	gauge("nuncio_applied_generation", "Number of the generation that HAProxy has confirmed.",
		func(s Status) float64 { return float64(s.AppliedGeneration) })
	gauge("nuncio_last_apply_success_timestamp_seconds", "When HAProxy last confirmed a generation, or was found to run the desired files.",
		func(s Status) float64 {
			if s.AppliedTime.IsZero() {
				return 0
			}
			return float64(s.AppliedTime.UnixMilli()) / 1000
		})
	gauge("nuncio_last_apply_successful", "1 if the last apply succeeded, 0 if it failed or there was none.",
		func(s Status) float64 { n := len(s.Applies); return number(n > 0 && !s.Applies[n-1].Failed()) })
	gauge("nuncio_old_workers", "Workers that a reload has replaced and that still have sessions.",
		func(s Status) float64 { return float64(s.OldWorkers) })
	gauge("nuncio_servers_leaving", "Servers in maintenance, and backends that are not published, until nothing uses them and they can be deleted.",
		func(s Status) float64 { return float64(s.Leaving) })
	for _, state := range states() {
		gaugeOf(prometheus.GaugeOpts{
			Name: "nuncio_state", Help: "1 for the state that nuncio's HAProxy side is in.",
			ConstLabels: prometheus.Labels{"state": string(state)},
		}, func(s Status) float64 { return number(s.State == state) })
	}
	return m, errors.Join(errs...)
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
