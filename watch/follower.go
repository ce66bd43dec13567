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
	clientv3 "go.etcd.io/etcd/client/v3"

	"nuncio/internal/etcd"
)

const (
	// firstTimeout is the end of the first request after a good spell, so that an outage is told of soon; later ones
	// get requestTimeout, so that a slow store is not taken for a missing one for ever.
	firstTimeout = 3 * time.Second
	// retryCap is the longest pause between two attempts, jitter included.
	retryCap = 3 * time.Second
)

// The values of the label "reason".
const (
	relistStart    = "start"
	relistPeriodic = "periodic"
	relistCompact  = "compaction"
	relistBack     = "store_went_back"
)

// follower talks to the store, one request after the other, and tells the deliverer what it learned.
type follower struct {
	client  *clientv3.Client
	ranges  []string
	relist  time.Duration
	log     *slog.Logger
	status  *tracker
	metrics *metrics
	out     chan<- update
	backoff *backoff.ExponentialBackOff

	seen     []int64 // per range: the revision up to which events have been passed on
	revision int64   // the newest revision that any answer named
	cluster  uint64
	listed   bool

	downSince time.Time // zero while the store answers
	refused   bool      // the present outage is a refusal
	checkSoon bool      // the last outage, which may have been shorter than any request, is not followed by a listing yet
	patience  time.Duration
}

func newFollower(s *Store, out chan<- update) *follower {
	f := &follower{
		client: s.o.Client, ranges: ranges(s.o.Prefix, s.o.Keys), relist: s.o.Relist, log: s.log,
		status: &s.status, metrics: s.metrics, out: out, patience: silentAfter,
		backoff: &backoff.ExponentialBackOff{
			InitialInterval: 50 * time.Millisecond, RandomizationFactor: 0.25, Multiplier: 2, MaxInterval: retryCap * 4 / 5,
		},
	}
	f.seen = make([]int64, len(f.ranges))
	f.backoff.Reset()
	return f
}

// run lists and watches until ctx ends.
func (f *follower) run(ctx context.Context) error {
	reason := relistStart
	for ctx.Err() == nil {
		if reason != "" {
			l, err := list(ctx, f.client, f.ranges, f.timeout())
			if err != nil {
				if !f.listed && etcd.IsAuthError(err) {
					return &CredentialsError{err}
				}
				f.failed(ctx, err)
				f.pause(ctx)
				continue
			}
			// A listing for another reason may be the first to show that the store was wiped meanwhile.
			if f.listed && reason != relistBack && f.wentBack(&etcdserverpb.ResponseHeader{Revision: l.revision, ClusterId: l.cluster}) {
				reason = relistBack
			}
			f.adopt(ctx, l, nil, reason)
		}
		reason = f.recover(ctx, f.watch(ctx))
	}
	return nil
}

// adopt makes a listing, and the events after it, the whole content.
func (f *follower) adopt(ctx context.Context, l listing, since []*clientv3.Event, reason string) {
	f.metrics.relists.WithLabelValues(reason).Inc()
	u := update{full: true, listing: l, revision: l.revision}
	for _, e := range since {
		if e.Kv.ModRevision > l.revision {
			u.events = append(u.events, e)
			u.revision = max(u.revision, e.Kv.ModRevision)
		}
	}
	for i := range f.seen {
		f.seen[i] = max(f.seen[i], l.revision)
		if reason == relistBack {
			f.seen[i] = l.revision
		}
	}
	if reason == relistBack {
		f.revision = 0
	}
	f.emit(ctx, u)
	f.listed = true
	f.status.synced()
	f.confirmed(&etcdserverpb.ResponseHeader{Revision: max(u.revision, f.revision), ClusterId: l.cluster})
}

func (f *follower) emit(ctx context.Context, u update) {
	select {
	case f.out <- u:
	case <-ctx.Done():
	}
}

// recover finds out what to do after a watch ended: it returns the reason to list again, or "" to watch on from
// where the last one stopped.
func (f *follower) recover(ctx context.Context, cause error) string {
	switch {
	case ctx.Err() != nil:
		return ""
	case errors.Is(cause, errCompacted):
		f.log.Debug("watch was compacted, listing again")
		return relistCompact
	case errors.Is(cause, errAdopted):
		return ""
	}
	f.log.Debug("watch ended, opening it again", "err", cause)
	f.pause(ctx)
	for ctx.Err() == nil {
		// A key inside the range, so that the same permission is enough.
		resp, err := get(ctx, f.client, f.timeout(), f.ranges[0], clientv3.WithLimit(1))
		if err != nil {
			f.failed(ctx, err)
			f.pause(ctx)
			continue
		}
		if f.wentBack(resp.Header) {
			return relistBack
		}
		f.confirmed(resp.Header)
		f.checkSoon = f.checkSoon || errors.Is(cause, errBroken)
		f.metrics.reconnects.Inc()
		return ""
	}
	return ""
}

// wentBack tells whether a linearizable answer shows another store than the one followed so far: a wiped one, or one
// restored from a backup. etcd accepts a watch from a revision that it has not reached and stays silent.
func (f *follower) wentBack(h *etcdserverpb.ResponseHeader) bool {
	if f.cluster != 0 && h.ClusterId != f.cluster {
		f.log.Warn("the store is another one, taking its content", "cluster_id", fmt.Sprintf("%x", h.ClusterId), "old_cluster_id", fmt.Sprintf("%x", f.cluster))
		return true
	}
	if h.Revision < f.revision {
		f.log.Warn("the store went back in time, taking its content", "revision", h.Revision, "old_revision", f.revision)
		return true
	}
	return false
}

// confirmed notes an answer of the store.
func (f *follower) confirmed(h *etcdserverpb.ResponseHeader) {
	f.revision, f.cluster = max(f.revision, h.Revision), h.ClusterId
	f.status.confirmed(h)
	if f.downSince.IsZero() {
		return
	}
	f.log.Info("store answers again", "revision", h.Revision, "away", time.Since(f.downSince).Round(time.Millisecond))
	f.downSince, f.refused, f.checkSoon = time.Time{}, false, true
}

// failed notes a request without an answer. An outage is logged when it begins and when it turns out to be a refusal.
func (f *follower) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	refused, hint := etcd.IsAuthError(err), etcd.Hint(err)
	f.status.failed(err.Error(), hint)
	began := f.downSince.IsZero()
	if began {
		f.downSince = time.Now()
	}
	if !began && refused == f.refused {
		return
	}
	f.refused = refused
	if refused {
		f.log.Error("store refuses the credentials, keeping what is known", "err", err, "hint", hint)
	} else {
		f.log.Warn("store does not answer, keeping what is known", "err", err, "hint", hint)
	}
}

func (f *follower) timeout() time.Duration {
	if f.downSince.IsZero() {
		return firstTimeout
	}
	return requestTimeout
}

func (f *follower) pause(ctx context.Context) {
	select {
	case <-time.After(f.backoff.NextBackOff()):
	case <-ctx.Done():
	}
}

// untilRelist is the time to the next full listing: spread, so that many proxies do not list at the same time, and
// soon after an outage, in which the store may have been replaced by one that is ahead of us.
func (f *follower) untilRelist() time.Duration {
	if f.checkSoon {
		f.checkSoon = false
		return min(f.relist, time.Second+rand.N(4*time.Second))
	}
	return f.relist*9/10 + rand.N(f.relist/5+1)
}
