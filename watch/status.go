package watch

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// StoreStatus is the state of a Store's connection.
type StoreStatus struct {
	// Synced is true once the store has been listed; it stays true while the store is away.
	Synced bool `json:"synced"`
	// Revision is the newest revision that the store has confirmed.
	Revision int64 `json:"revision"`
	// ClusterID is the store's identity.
	ClusterID uint64 `json:"-"`
	// LastSync is when the store last confirmed that the content is complete: by a listing, an event or an answer to a
	// progress request. A server that leaves those unanswered, such as etcd's grpc-proxy, confirms only that it is there.
	LastSync time.Time `json:"last_sync,omitzero"`
	// Endpoints are the store's addresses.
	Endpoints []string `json:"endpoints"`
	// Select is the expression that records must match to count; empty selects all. NotSelected is how many do not.
	Select      string `json:"select,omitempty"`
	NotSelected int    `json:"not_selected,omitempty"`
	// NearLimit says that records will soon be left out, or are already, because of a limit; it is empty otherwise.
	NearLimit string `json:"near_limit,omitempty"`
	// Err is the error of the last request; empty while the store answers.
	Err string `json:"error,omitempty"`
	// Failures counts the failed requests of the present outage.
	Failures int `json:"failures,omitempty"`
	// Hint names the setting to check; it may be empty.
	Hint string `json:"hint,omitempty"`
}

// tracker is the status behind its lock.
type tracker struct {
	mu sync.Mutex
	s  StoreStatus
}

func (t *tracker) get() StoreStatus {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.s
}

func (t *tracker) confirmed(revision int64, cluster uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.Revision, t.s.ClusterID, t.s.LastSync = revision, cluster, time.Now()
	t.s.Err, t.s.Hint, t.s.Failures = "", "", 0
}

func (t *tracker) synced() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.Synced = true
}

func (t *tracker) nearLimit(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.NearLimit = text
}

func (t *tracker) unselected(n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.NotSelected = n
}

func (t *tracker) failed(err, hint string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.s.Err, t.s.Hint = err, hint
	t.s.Failures++
}

// metrics are the metrics of a Store.
type metrics struct {
	relists, comparisons             *prometheus.CounterVec
	reconnects, events               prometheus.Counter
	services, instances, quarantined prometheus.Gauge
	unselected, keys, keysLimit      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer, t *tracker) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		relists: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nuncio_watch_relists_total",
			Help: "Full listings of the store, by reason: start, compaction, store_went_back, drift, room.",
		}, []string{"reason"}),
		comparisons: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "nuncio_watch_comparisons_total",
			Help: "Comparisons of what the watch reported with revision, count and newest key of the store, by result: same, different.",
		}, []string{"result"}),
		reconnects:  counter("nuncio_watch_reconnects_total", "Watches of the store that were reopened after one ended or fell silent."),
		events:      counter("nuncio_watch_events_total", "Changes of keys that the store reported."),
		services:    gauge("nuncio_services", "Services with at least one valid record."),
		instances:   gauge("nuncio_instances", "Instances of all services."),
		quarantined: gauge("nuncio_quarantined_records", "Records that are not served because they break the contract or exceed a limit."),
		unselected:  gauge("nuncio_unselected_records", "Records that --select leaves out."),
		keys:        gauge("nuncio_keys", "Keys of the store that are kept, records and others."),
		keysLimit:   gauge("nuncio_keys_limit", "Limit of nuncio_keys, as --max-records says."),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{
		m.relists, m.comparisons, m.reconnects, m.events, m.services, m.instances, m.quarantined, m.unselected, m.keys, m.keysLimit,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nuncio_watch_revision", Help: "Newest revision that the store has confirmed.",
		}, func() float64 { return float64(t.get().Revision) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "nuncio_watch_last_sync_timestamp_seconds",
			Help: "When the store last confirmed that the content is complete; 0 before the first time.",
		}, func() float64 {
			if last := t.get().LastSync; !last.IsZero() {
				return float64(last.UnixMilli()) / 1000
			}
			return 0
		}),
	} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
