package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	duration             prometheus.Histogram
	errors               prometheus.Counter
	templates            prometheus.Gauge
	dropped, emptied     prometheus.Gauge
	trust, heldKeys      prometheus.Gauge
	unmet                prometheus.Gauge
	held                 prometheus.Gauge
	activations          prometheus.Counter
	droppedInstances     prometheus.Counter
	portConflicts        prometheus.Gauge
	rolledBack, isFrozen prometheus.Gauge
	expiry               *prometheus.GaugeVec
	refused              prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	with := promauto.With(registerer)
	gauge := func(name, help string) prometheus.Gauge {
		return with.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return with.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	return &metrics{
		duration: with.NewHistogram(prometheus.HistogramOpts{
			Name: "nuncio_render_duration_seconds", Help: "Time to render all files from one snapshot.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 9),
		}),
		errors:           counter("nuncio_render_errors_total", "Renderings that ended with an error."),
		templates:        gauge("nuncio_templates_up_to_date", "1 when the newest templates work, 0 while they do not and an older set serves."),
		heldKeys:         gauge("nuncio_shrink_guard_held_keys", "Keys that are no records, that the store no longer has, and that the shrink guard holds; 0 while it holds none."),
		trust:            gauge("nuncio_trust_values", "1 while values from the store are printed as they are (--trust-values), otherwise 0."),
		emptied:          gauge("nuncio_emptied_backends", "Backends without a server because the lines of all their servers were dropped."),
		dropped:          gauge("nuncio_dropped_lines", "Lines dropped from the rendered files because of a value that cannot stand there."),
		unmet:            gauge("nuncio_unmet_wishes", "Wishes of services that are not met: routes and ports that another service has, values and keys that the templates do not know."),
		held:             gauge("nuncio_shrink_guard_held_instances", "Instances that the store no longer has and that the shrink guard holds; 0 while it holds nothing."),
		activations:      counter("nuncio_shrink_guard_activations_total", "Times that the shrink guard began to hold instances."),
		droppedInstances: counter("nuncio_shrink_guard_dropped_instances_total", "Instances that were still missing from the store when the shrink guard stopped holding them, and left HAProxy."),
		portConflicts:    gauge("nuncio_port_conflict_records", "Records quarantined because something other than HAProxy uses the TCP port that they ask for."),
		rolledBack:       gauge("nuncio_rolled_back_template_set", "Number of the template set that an operator rolled back to; 0 while nothing is rolled back."),
		isFrozen:         gauge("nuncio_frozen_generation", "Number of the generation that an operator froze; 0 while nothing is frozen."),
		expiry: with.NewGaugeVec(prometheus.GaugeOpts{
			Name: "nuncio_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that HAProxy serves from a file expires, as a Unix time; of the 500 that expire first.",
		}, []string{"file"}),
		refused: gauge("nuncio_certificates_refused", "Certificates and authorities whose newest content is not in use, because it is broken, expired or missing."),
	}
}

func (m *metrics) ordered(order Resumed) {
	m.rolledBack.Set(0)
	m.isFrozen.Set(0)
	switch {
	case order.RolledBack != nil:
		m.rolledBack.Set(float64(order.RolledBack.TemplateSet))
	case order.Frozen != nil:
		m.isFrozen.Set(float64(order.Frozen.Generation))
	}
}

// maxExpiry bounds the series: there can be thousands of certificates.
const maxExpiry = 500

func (m *metrics) certificates(all []Certificate) {
	m.expiry.Reset()
	for _, c := range soonest(all, maxExpiry) {
		m.expiry.WithLabelValues(c.File).Set(float64(c.NotAfter.Unix()))
	}
	m.refused.Set(float64(len(Status{Certificates: all}.Refused())))
}
