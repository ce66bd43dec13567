package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/catalog"
	"nuncio/internal/etcd"
)

const (
	// firstTimeout bounds the first request of an outage, so that it is reported soon; later ones get requestTimeout, so
	// that a slow store is not taken for a missing one.
	firstTimeout = 3 * time.Second
	// retryFirst and retryCap are the shortest and the longest pause between two attempts, but for a quarter of jitter.
	retryFirst = 50 * time.Millisecond
	retryCap   = 2400 * time.Millisecond
)

// The values of the label "reason".
const (
	relistStart   = "start"
	relistDrift   = "drift"
	relistRoom    = "room"
	relistCompact = "compaction"
	relistBack    = "store_went_back"
)

// etcdWatcher talks to the store and passes what it learns on to the deliverer.
type etcdWatcher struct {
	client      *clientv3.Client
	ranges      catalog.Ranges
	compare     time.Duration
	startJitter time.Duration
	log         *slog.Logger
	status      *tracker
	metrics     *metrics
	out         chan<- update
	roomy       <-chan struct{} // receives when keys that were left out have room
	backoff     *backoff.ExponentialBackOff

	ledger   ledger
	compared int       // comparisons begun
	wantRoom bool      // keys that were left out have room: list at the next comparison
	nextRoom time.Time // not before this is one brought forward for that
	seen     []int64   // per range: the revision up to which events have been passed on
	revision int64     // the newest revision of any answer
	cluster  uint64
	listed   bool

	downSince    time.Time // zero while the store answers
	refused      bool      // the present outage is a refusal
	checkSoon    bool      // compare soon: after an outage, which may have been shorter than any request
	silenceLimit time.Duration
}

func newEtcdWatcher(s *Store, out chan<- update, roomy <-chan struct{}) *etcdWatcher {
	w := &etcdWatcher{
		client: s.o.Client, ranges: s.watched, compare: s.o.Compare, startJitter: s.o.StartJitter, log: s.log,
		status: &s.status, metrics: s.metrics, out: out, roomy: roomy, silenceLimit: silentAfter,
		backoff: &backoff.ExponentialBackOff{InitialInterval: retryFirst, RandomizationFactor: 0.25, Multiplier: 2, MaxInterval: retryCap},
	}
	w.seen, w.ledger.ranges = make([]int64, len(w.ranges)), w.ranges
	w.backoff.Reset()
	return w
}

// run lists and watches until ctx ends. Every pass that did not end well is followed by a pause.
func (w *etcdWatcher) run(ctx context.Context) error {
	w.jitter(ctx)
	reason := relistStart
	for ctx.Err() == nil {
		if reason != "" {
			l, err := list(ctx, w.client, w.ranges, w.timeout())
			if err != nil {
				if !w.listed && etcd.IsAuthError(err) {
					return &CredentialsError{err}
				}
				w.failed(ctx, err)
				w.pause(ctx)
				continue
			}
			// A listing for a different reason may be the first answer of a store that was wiped.
			if w.listed && reason != relistBack && w.rolledBack(l.header()) {
				reason = relistBack
			}
			w.apply(ctx, l, nil, reason)
		}
		reason = w.reconnect(ctx, w.watch(ctx))
	}
	return nil
}

// jitter waits for a random time, so that programs that start together do not list together.
func (w *etcdWatcher) jitter(ctx context.Context) {
	if w.startJitter == 0 {
		return
	}
	wait := rand.N(w.startJitter)
	w.log.Info("waiting before etcd is asked, as --start-jitter says", "wait", wait.Round(time.Millisecond))
	select {
	case <-time.After(wait):
	case <-ctx.Done():
	}
}

// apply makes a listing, and the events after it, the whole content.
func (w *etcdWatcher) apply(ctx context.Context, l listing, since []*clientv3.Event, reason string) {
	w.metrics.relists.WithLabelValues(reason).Inc()
	u := update{full: true, listing: l, revision: l.revision}
	for _, e := range since {
		if e.Kv.ModRevision > l.revision {
			u.events = append(u.events, e)
			u.revision = max(u.revision, e.Kv.ModRevision)
		}
	}
	if reason == relistBack {
		clear(w.seen)
		w.revision = 0
	}
	for i := range w.seen {
		w.seen[i] = max(w.seen[i], l.revision)
	}
	w.ledger.listed(l)
	w.ledger.follow(u.events)
	w.emit(ctx, u)
	w.listed = true
	w.status.synced()
	w.confirmed(&etcdserverpb.ResponseHeader{Revision: max(u.revision, w.revision), ClusterId: l.cluster})
}

func (w *etcdWatcher) emit(ctx context.Context, u update) {
	select {
	case w.out <- u:
	case <-ctx.Done():
	}
}

// reconnect decides what follows the end of a watch: it returns the reason to list again, or "" to continue the watch
// where it stopped.
func (w *etcdWatcher) reconnect(ctx context.Context, cause error) string {
	if ctx.Err() != nil || errors.Is(cause, errRolledBack) {
		return ""
	}
	w.log.Debug("watch ended, opening it again", "err", cause)
	w.pause(ctx)
	if errors.Is(cause, errCompacted) {
		return relistCompact
	}
	for ctx.Err() == nil {
		header, same, err := w.ledger.isSame(ctx, w.client, w.timeout())
		switch {
		case errors.Is(err, rpctypes.ErrCompacted): // so the watch would be refused too
			return relistCompact
		case errors.Is(err, rpctypes.ErrFutureRev):
			w.log.Warn("store went back in time, taking its content", "old_revision", w.revision)
			return relistBack
		case err != nil:
			w.failed(ctx, err)
			w.pause(ctx)
			continue
		case w.rolledBack(header):
			return relistBack
		case !same:
			w.log.Warn("store was replaced, taking its content", "revision", header.Revision, "old_revision", w.revision)
			return relistBack
		}
		w.confirmed(header)
		w.checkSoon = w.checkSoon || errors.Is(cause, errBroken)
		w.metrics.reconnects.Inc()
		return ""
	}
	return ""
}

// rolledBack reports whether a linearizable answer comes from a different store than before: a wiped one, or one restored
// from a backup. etcd accepts a watch from a revision that it has not reached, and stays silent.
func (w *etcdWatcher) rolledBack(h *etcdserverpb.ResponseHeader) bool {
	if w.cluster != 0 && h.ClusterId != w.cluster {
		w.log.Warn("store was replaced, taking its content", "cluster_id", fmt.Sprintf("%x", h.ClusterId), "old_cluster_id", fmt.Sprintf("%x", w.cluster))
		return true
	}
	if h.Revision < w.revision {
		w.log.Warn("store went back in time, taking its content", "revision", h.Revision, "old_revision", w.revision)
		return true
	}
	return false
}

// confirmed records an answer of the store.
func (w *etcdWatcher) confirmed(h *etcdserverpb.ResponseHeader) {
	w.revision, w.cluster = max(w.revision, h.Revision), h.ClusterId
	w.status.confirmed(w.revision, w.cluster)
	if w.downSince.IsZero() {
		return
	}
	w.log.Info("store answers again", "revision", h.Revision, "away", time.Since(w.downSince).Round(time.Millisecond))
	w.downSince, w.refused, w.checkSoon = time.Time{}, false, true
}

// failed records a request without an answer. An outage is logged when it begins and when it becomes a refusal or ceases
// to be one.
func (w *etcdWatcher) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	refused, hint := etcd.IsAuthError(err), etcd.Hint(err)
	w.status.failed(err.Error(), hint)
	began := w.downSince.IsZero()
	if began {
		w.downSince = time.Now()
	}
	if !began && refused == w.refused {
		return
	}
	w.refused = refused
	if refused {
		w.log.Error("store refuses the credentials, keeping the last content", "err", err, "hint", hint)
	} else {
		w.log.Warn("store does not answer, keeping the last content", "err", err, "hint", hint)
	}
}

func (w *etcdWatcher) timeout() time.Duration {
	if w.downSince.IsZero() {
		return firstTimeout
	}
	return requestTimeout
}

func (w *etcdWatcher) pause(ctx context.Context) {
	select {
	case <-time.After(w.backoff.NextBackOff()):
	case <-ctx.Done():
	}
}

// untilCompare returns the time until the next comparison: spread, so that many proxies do not ask at the same time, and
// soon after an outage, in which the store may have been replaced by one with a higher revision.
func (w *etcdWatcher) untilCompare() time.Duration {
	if w.checkSoon {
		w.checkSoon = false
		return min(w.compare, time.Second+rand.N(4*time.Second))
	}
	return w.compare*9/10 + rand.N(w.compare/5+1)
}
