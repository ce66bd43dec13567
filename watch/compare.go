package watch

import (
	"context"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"nuncio/internal/etcd"
)

const (
	// DefaultCompare is the time between two comparisons with the store.
	DefaultCompare = time.Minute
	// thoroughEvery is how many comparisons there are for one that is thorough.
	thoroughEvery = 10
	// maxSince is how many bytes of events are kept for a question in progress. Beyond that the answer is dropped, since
	// the watch has delivered everything anyway.
	maxSince = 32 << 20
)

// The phases of a comparison. A listing may begin in each of them.
const (
	idle     = iota
	asking   // the store is asked for a census
	settling // the watch may not have come to the revision of the census
	relisting
)

// comparison is the question to the store that is in progress.
type comparison struct {
	phase    int
	due      *time.Timer // for the next one
	settled  *time.Timer
	censuses chan censusAnswer
	lists    chan listAnswer

	asked   int64 // w.revision when the question was asked,
	census  census
	reason  string            // of the listing
	since   []*clientv3.Event // the events since it was asked,
	pending int               // and their bytes
}

type censusAnswer struct {
	census census
	err    error
}

type listAnswer struct {
	listing listing
	err     error
}

func newComparison(due time.Duration) comparison {
	settled := time.NewTimer(time.Hour)
	settled.Stop()
	return comparison{due: time.NewTimer(due), settled: settled, censuses: make(chan censusAnswer, 1), lists: make(chan listAnswer, 1)}
}

func (c *comparison) stop() {
	c.due.Stop()
	c.settled.Stop()
}

// begin asks for a census. It is a thorough one now and then, if anything was written since the last.
func (s *session) begin(ctx context.Context, wg *sync.WaitGroup) {
	if s.wantRoom {
		s.listAgain(ctx, wg, relistRoom)
		return
	}
	thorough := s.compared%thoroughEvery == 0 && s.revision > s.ledger.proven
	s.compared++
	s.ask(asking)
	question := s.ledger.ask(thorough)
	wg.Go(func() {
		c, err := question(ctx, s.client)
		s.censuses <- censusAnswer{c, err}
	})
}

// wantListing has everything listed in place of the next comparison. That one is brought forward, but not twice within the
// time between two: near a limit records come and go too.
func (s *session) wantListing(now time.Time) {
	s.wantRoom = true
	if now.After(s.nextRoom) {
		s.nextRoom, s.checkSoon = now.Add(s.compare), true
	}
}

// ask notes that a question is asked now.
func (s *session) ask(phase int) {
	s.settled.Stop()
	s.phase, s.asked, s.since, s.pending = phase, s.revision, nil, 0
}

// done ends the question, and plans the next one.
func (s *session) done() {
	s.phase, s.since = idle, nil
	s.settled.Stop()
	s.due.Reset(s.untilCompare())
}

// takeCensus takes the answer. The watch may still have to report what came before it; how long that may take is limited,
// since a watch behind etcd's grpc-proxy does not tell how far it is.
func (s *session) takeCensus(a censusAnswer) error {
	switch {
	case s.phase != asking: // a listing has overtaken it
		return nil
	case etcd.IsAuthError(a.err):
		return a.err
	case a.err != nil && status.Code(a.err) != codes.ResourceExhausted: // that one is settled by a listing, in pages
		s.log.Debug("comparison failed, continuing the watch", "err", a.err)
		s.done()
		return nil
	case a.err == nil && (a.census.cluster != s.cluster || a.census.revision < s.asked):
		return errBehind
	}
	s.phase, s.census = settling, a.census
	s.settled.Reset(silentAfter)
	return nil
}

// caughtUp reports whether every watch has come to the revision of the census.
func (s *session) caughtUp() bool {
	for _, r := range s.newest {
		if r < s.census.revision {
			return false
		}
	}
	return true
}

// decide ends a comparison: with a listing if the store has something else than what was passed on.
func (s *session) decide(ctx context.Context, wg *sync.WaitGroup) {
	switch {
	case s.pending > maxSince:
		s.done()
	case s.ledger.agrees(s.census, s.since):
		s.metrics.comparisons.WithLabelValues("same").Inc()
		if s.census.thorough || s.census.revision == s.ledger.proven {
			s.ledger.prove(s.census.revision)
		}
		s.done()
	default:
		s.metrics.comparisons.WithLabelValues("different").Inc()
		s.log.Warn("store has something else than its watch reported, listing it", "revision", s.census.revision)
		s.listAgain(ctx, wg, relistDrift)
	}
}

// listAgain lists everything beside the watch.
func (s *session) listAgain(ctx context.Context, wg *sync.WaitGroup, reason string) {
	if s.phase == relisting {
		return
	}
	s.ask(relisting)
	s.reason = reason
	wg.Go(func() {
		l, err := list(ctx, s.client, s.ranges, requestTimeout)
		s.lists <- listAnswer{l, err}
	})
}

// takeListing takes the listing.
func (s *session) takeListing(ctx context.Context, a listAnswer) error {
	switch {
	case etcd.IsAuthError(a.err):
		return a.err
	case a.err != nil:
		s.log.Debug("listing failed, continuing the watch", "err", a.err)
		s.checkSoon = true
	case a.listing.cluster != s.cluster || a.listing.revision < s.asked:
		s.rolledBack(a.listing.header())
		s.apply(ctx, a.listing, nil, relistBack)
		return errRolledBack
	case s.pending <= maxSince:
		s.wantRoom = false
		s.apply(ctx, a.listing, s.since, s.reason)
	}
	s.done()
	if s.reason == relistDrift && s.asksHeaders {
		return errIncomplete
	}
	return nil
}

// remember keeps the events that arrive while a question is in progress, up to maxSince bytes.
func (s *session) remember(events []*clientv3.Event) {
	if s.phase == idle {
		return
	}
	for _, e := range events {
		s.pending += len(e.Kv.Key) + len(e.Kv.Value)
	}
	if s.pending > maxSince {
		s.since = nil
		return
	}
	s.since = append(s.since, events...)
}
