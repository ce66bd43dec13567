package register

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are the registrar's own figures.
type Metrics struct {
	dockerUp, etcdUp, containers, skipped, conflicts, keptAlive prometheus.Gauge

	records                               *prometheus.GaugeVec
	events, writes, txns                  *prometheus.CounterVec
	resyncs, drift, leases, inspectErrors prometheus.Counter
}

// NewMetrics registers the figures; a nil registerer keeps them to themselves.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "nuncio", "registrar"
	with := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	counters := func(name, help, label string) *prometheus.CounterVec {
		return with.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, []string{label})
	}
	return &Metrics{
		dockerUp:   gauge("docker_up", "1 while Docker answers."),
		etcdUp:     gauge("etcd_up", "1 while etcd answers."),
		containers: gauge("containers", "Containers that run, are paused or restart."),
		skipped:    gauge("skipped", "Containers, or ports of containers, that were skipped."),
		conflicts:  gauge("conflicts", "Records that are not written because a different owner holds their key."),
		records: with.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "records", Help: "Records of this registrar by state.",
		}, []string{"state"}),
		events:        counters("docker_events_total", "Events received from Docker by action.", "action"),
		writes:        counters("writes_total", "Keys written to etcd by cause: new, changed, lease, gone.", "cause"),
		txns:          counters("transactions_total", "Transactions by result: committed, refused (a key had changed since it was read), failed.", "result"),
		resyncs:       counter("resyncs_total", "Complete lists of containers read from Docker."),
		drift:         counter("drift_total", "Resyncs that found a key in etcd changed from outside."),
		leases:        counter("leases_granted_total", "Leases granted by etcd to this process."),
		inspectErrors: counter("inspect_errors_total", "Inspections of containers that failed."),
		keptAlive:     gauge("lease_kept_alive_timestamp_seconds", "When etcd last confirmed the lease, in Unix time."),
	}
}

func (m *Metrics) countRecords(records []RecordStatus) {
	m.records.Reset()
	for _, r := range records {
		m.records.WithLabelValues(string(r.State)).Inc()
	}
}
