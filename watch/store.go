package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
)

// StoreOptions configure a Store. Client is required; a zero elsewhere means the default.
type StoreOptions struct {
	// Client is the connection to the store. The caller closes it after Run.
	Client *clientv3.Client
	// Prefix is the key prefix of the records; empty means catalog.DefaultPrefix.
	Prefix string
	// NoRecords says that there are none, wherever Prefix points.
	NoRecords bool
	// Keys are further directories and keys, which only templates use (see catalog.NewRanges). All are listed at the same
	// revision, but each has its own watch: a transaction that writes below two of them may appear as two snapshots.
	Keys []string
	// Select says which records count; see catalog.BuilderOptions.
	Select catalog.Selector
	// StartJitter is the longest time, chosen at random up to it, that Run waits before it asks the store for anything.
	StartJitter time.Duration
	// Compare is the time between two comparisons with the store, give or take a tenth.
	Compare time.Duration
	// Limits bound what is kept of the store; a zero in them means the default of catalog.
	Limits catalog.Limits
	// Refuse is passed on to catalog.BuilderOptions.
	Refuse func(*catalog.Instance) string
	// Logger may be nil.
	Logger *slog.Logger
	// Registerer gets the metrics; nil means none.
	Registerer prometheus.Registerer
}

// Store follows the content of etcd.
type Store struct {
	o       StoreOptions
	log     *slog.Logger
	metrics *metrics
	status  tracker
	watched catalog.Ranges
}

// CredentialsError is the error of Run when the store refuses the first listing: the settings are wrong. Later refusals
// are reported by Status and retried.
type CredentialsError struct{ Err error }

// Error includes the store's error.
func (e *CredentialsError) Error() string {
	return fmt.Sprintf("the store refuses the credentials: %v", e.Err)
}

// Unwrap returns the store's error.
func (e *CredentialsError) Unwrap() error { return e.Err }

// NewStore checks the options and registers the metrics; it starts nothing.
func NewStore(o StoreOptions) (*Store, error) {
	if o.Client == nil {
		return nil, errors.New("watch: a client is needed")
	}
	o.Prefix = catalog.NormalizePrefix(orDefault(o.Prefix, catalog.DefaultPrefix))
	records := o.Prefix
	if o.NoRecords {
		records = ""
	}
	o.Compare = orDefault(o.Compare, DefaultCompare)
	if o.Compare < 0 {
		return nil, fmt.Errorf("watch: the time between comparisons is %v; it must not be negative", o.Compare)
	}
	if o.StartJitter < 0 {
		return nil, fmt.Errorf("watch: the jitter of the start is %v; it must not be negative", o.StartJitter)
	}
	s := &Store{o: o, log: o.Logger, watched: catalog.NewRanges(records, o.Keys)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.status.s.Endpoints, s.status.s.Select = o.Client.Endpoints(), o.Select.String()
	m, err := newMetrics(o.Registerer, &s.status)
	if err != nil {
		return nil, fmt.Errorf("watch: register metrics: %w", err)
	}
	s.metrics = m
	return s, nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// Status returns the state of the connection. It may be called at any time, from any goroutine.
func (s *Store) Status() StoreStatus { return s.status.get() }

// Run follows the store until ctx ends and sends snapshots to out, under the contract in the package comment. It returns
// nil after the end of ctx, or a *CredentialsError.
func (s *Store) Run(ctx context.Context, out chan<- *catalog.Snapshot) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates, ended, roomy := make(chan update), make(chan error, 1), make(chan struct{}, 1)
	w := newEtcdWatcher(s, updates, roomy)
	go func() { ended <- w.run(ctx) }()
	builder := catalog.NewBuilder(catalog.BuilderOptions{Prefix: s.o.Prefix, NoRecords: s.o.NoRecords, Watched: s.watched, Select: s.o.Select, Limits: s.o.Limits, Refuse: s.o.Refuse})
	d := &deliverer{store: s, builder: builder, roomy: roomy}
	d.run(ctx, updates, ended, out)
	cancel()
	return <-ended
}

// update is one step of the store's content.
type update struct {
	full     bool // the listing replaces the content, before the events are applied
	listing  listing
	events   []*clientv3.Event
	revision int64
}

// deliverer owns the content. It offers the newest snapshot for as long as the receiver has not taken it: a receiver that is
// free gets a change at once, and one that is busy gets all that has come meanwhile as one.
type deliverer struct {
	store    *Store
	builder  *catalog.Builder
	roomy    chan<- struct{} // asks for a listing
	revision int64
	changed  bool              // something has come since the last delivery
	last     *catalog.Snapshot // delivered last
	reported *catalog.Snapshot // logged and counted last
}

func (d *deliverer) run(ctx context.Context, updates <-chan update, ended chan error, out chan<- *catalog.Snapshot) {
	for {
		var send chan<- *catalog.Snapshot
		var next *catalog.Snapshot
		if d.changed {
			if next = d.snapshot(); next != nil {
				send = out
			}
		}
		select {
		case <-ctx.Done():
			return
		case err := <-ended:
			ended <- err // for Run
			return
		case u := <-updates:
			d.apply(u)
		case send <- next:
			d.last, d.changed = next, false
		}
	}
}

func (d *deliverer) apply(u update) {
	if u.full {
		d.builder.Replace(u.listing.pairs())
		d.builder.From(u.listing.cluster)
		d.revision = 0
	}
	for _, e := range u.events {
		if e.Type == mvccpb.DELETE {
			d.builder.Delete(string(e.Kv.Key))
		} else {
			d.builder.Put(string(e.Kv.Key), e.Kv.Value)
		}
	}
	d.revision, d.changed = max(d.revision, u.revision), true
	if d.builder.Incomplete() {
		select {
		case d.roomy <- struct{}{}:
		default: // it is asked for already
		}
	}
}

// snapshot returns the content to deliver now, or nil when it equals the snapshot delivered last.
func (d *deliverer) snapshot() *catalog.Snapshot {
	next := d.builder.Snapshot(d.revision)
	if next != d.reported {
		d.report(next)
		d.reported = next
	}
	if d.last != nil && next.Same(d.last) {
		d.changed = false
		return nil
	}
	return next
}

// report updates the metrics and logs which records entered or left quarantine.
func (d *deliverer) report(next *catalog.Snapshot) {
	services, instances := next.Counts()
	m := d.store.metrics
	m.services.Set(float64(services))
	m.instances.Set(float64(instances))
	m.quarantined.Set(float64(len(next.Quarantined)))
	m.unselected.Set(float64(next.Unselected))
	d.store.status.unselected(next.Unselected)
	d.reportLimits()
	old := map[string]catalog.Quarantined{}
	if d.reported != nil {
		for _, q := range d.reported.Quarantined {
			old[q.Key] = q
		}
	}
	for _, q := range next.Quarantined {
		if old[q.Key] != q {
			// Nothing of the value: a secret may stand in the wrong place. "nuncio services" shows the invalid part.
			d.store.log.Warn("record quarantined", "key", q.Key, "reason", q.Reason)
		}
		delete(old, q.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(old)) {
		d.store.log.Info("record left quarantine", "key", key)
	}
}

// reportLimits warns before records are left out.
func (d *deliverer) reportLimits() {
	used, limits := d.builder.Used(), d.builder.Limits()
	m := d.store.metrics
	m.keys.Set(float64(used.Keys))
	m.keysLimit.Set(float64(limits.Keys))
	before := d.store.Status().NearLimit
	text := nearLimit(used, limits, before != "")
	d.store.status.nearLimit(text)
	switch {
	case text != "" && before == "":
		d.store.log.Warn("near the limit of what is kept of the store; the newest keys beyond it are left out", "used", text)
	case text == "" && before != "":
		d.store.log.Info("no longer near the limit of what is kept of the store")
	}
}

// The shares of a limit, in percent, at which a warning begins and ends.
const (
	warnFrom  = 80
	warnUntil = 75
)

// nearLimit says which limit is nearly reached, or returns "".
func nearLimit(used, limits catalog.Limits, warned bool) string {
	from := warnFrom
	if warned {
		from = warnUntil
	}
	if percent := 100 * used.Keys / limits.Keys; percent >= from {
		return fmt.Sprintf("%d %% of the %d keys that --max-records allows; raise it, or leave records out with --select", percent, limits.Keys)
	}
	if percent := 100 * used.Bytes / limits.Bytes; percent >= from {
		return fmt.Sprintf("%d %% of the %d bytes that all keys and values may have together; leave records out with --select, or shorten them", percent, limits.Bytes)
	}
	return ""
}
