package watch

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"nuncio/internal/etcd"
)

const (
	// probeEvery is how often the store is asked to prove that the watch is alive, and silentAfter how long the answer may
	// take. By itself etcd sends something every ten minutes.
	probeEvery      = time.Second
	silentAfter     = 5 * time.Second
	maxSilenceLimit = 40 * time.Second
	// stableAfter is how long a watch must work before the next failure counts as the first one.
	stableAfter = 5 * time.Second
	// maxSince is how many bytes of events are kept for a listing in progress. Beyond that the listing is dropped, since
	// the watch has delivered everything anyway.
	maxSince = 32 << 20
)

var (
	errCompacted  = errors.New("the revisions to watch from were compacted")
	errRolledBack = errors.New("a listing replaced the watched content")
	errSilent     = errors.New("the watch is silent")
	errBehind     = errors.New("the store reports an older revision or a different cluster")
	errClosed     = errors.New("the watch was closed")
	errBroken     = errors.New("the connection broke")
)

// session is one set of watches, one per range, and the periodic listing beside them.
type session struct {
	*etcdWatcher
	began   time.Time
	answers chan answer
	lists   chan listAnswer
	broken  chan struct{}

	listing bool              // a periodic listing is in progress,
	asked   int64             // w.revision when it began,
	since   []*clientv3.Event // and the events since then
	pending int               // their bytes
}

type answer struct {
	at   int // index of the range
	resp clientv3.WatchResponse
	open bool
}

type listAnswer struct {
	listing listing
	err     error
}

// watch follows all ranges until ctx ends, and then returns nil, or until a watch fails, and then returns why.
func (w *etcdWatcher) watch(ctx context.Context) error {
	// With RequireLeader a member that lost its cluster ends the watch instead of going silent.
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	s := &session{
		etcdWatcher: w, began: time.Now(),
		answers: make(chan answer), lists: make(chan listAnswer, 1), broken: make(chan struct{}),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range w.ranges {
		from := w.seen[i]
		wg.Go(func() { s.forward(wctx, i, from) })
	}
	wg.Go(func() { s.probe(wctx) })

	silence, relist := time.NewTimer(w.silenceLimit), time.NewTimer(w.untilRelist())
	defer silence.Stop()
	defer relist.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case a := <-s.answers:
			if err := s.handle(ctx, a); err != nil {
				return err
			}
			silence.Reset(silentAfter)
			if w.checkSoon && !s.listing {
				relist.Reset(w.untilRelist())
			}
		case <-s.broken:
			return errBroken
		case <-relist.C:
			s.listing, s.asked, s.since, s.pending = true, w.revision, nil, 0
			wg.Go(func() {
				l, err := list(wctx, w.client, w.ranges, requestTimeout)
				s.lists <- listAnswer{l, err}
			})
		case l := <-s.lists:
			if err := s.compare(ctx, l); err != nil {
				return err
			}
			relist.Reset(w.untilRelist())
		case <-silence.C:
			// The next watch gets more time: perhaps every answer takes that long.
			w.silenceLimit = min(2*w.silenceLimit, maxSilenceLimit)
			return errSilent
		}
	}
}

// forward opens the watch of one range, which blocks until the store has answered, and passes its answers on. The watch
// begins with the known revision, not with the one after it: until something is written, etcd 3.5 and later leave
// progress requests for a watch of a future revision unanswered, and silence must mean a dead watch.
func (s *session) forward(ctx context.Context, at int, revision int64) {
	watch := s.client.Watch(ctx, s.ranges[at], clientv3.WithRange(rangeEnd(s.ranges[at])), clientv3.WithRev(revision),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	for open := true; open; {
		a := answer{at: at}
		a.resp, open = <-watch
		a.open = open
		select {
		case s.answers <- a:
		case <-ctx.Done():
			return
		}
	}
}

// probe asks for progress while there is a connection, and closes s.broken when it is lost. The client reconnects and
// resumes the watch without a word, so a store that was replaced meanwhile and is further on already would pass for the
// same one.
func (s *session) probe(ctx context.Context) {
	conn := s.client.ActiveConnection()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
	for ctx.Err() == nil {
		wait, cancel := context.WithTimeout(ctx, probeEvery)
		lost := conn.WaitForStateChange(wait, connectivity.Ready)
		cancel()
		if lost {
			close(s.broken)
			return
		}
		wait, cancel = context.WithTimeout(ctx, probeEvery)
		_ = s.client.RequestProgress(wait) // a missing answer is noticed as silence
		cancel()
	}
}

// handle takes one answer of a watch. Only events move w.seen: etcd before 3.4.25 and 3.5.8 may answer a progress
// request with a revision whose events it has not sent yet.
func (s *session) handle(ctx context.Context, a answer) error {
	switch err := a.resp.Err(); {
	case !a.open:
		return errClosed
	case errors.Is(err, rpctypes.ErrCompacted):
		return errCompacted
	case err != nil:
		return err
	}
	u := update{revision: s.seen[a.at]}
	for _, e := range a.resp.Events {
		if e.Kv.ModRevision > s.seen[a.at] {
			u.events = append(u.events, e)
			u.revision = max(u.revision, e.Kv.ModRevision)
		}
	}
	if len(u.events) > 0 {
		s.seen[a.at] = u.revision
		s.metrics.events.Add(float64(len(u.events)))
		s.emit(ctx, u)
		if s.listing {
			s.remember(u.events)
		}
	}
	if h := a.resp.Header; h.Revision != 0 {
		// A member that lags behind does not prove that the store was rolled back: a linearizable read decides.
		if h.Revision < s.revision || h.ClusterId != s.cluster {
			return errBehind
		}
		s.confirmed(h)
	}
	if time.Since(s.began) > stableAfter {
		s.backoff.Reset()
	}
	s.silenceLimit = silentAfter
	return nil
}

// compare takes the periodic listing.
func (s *session) compare(ctx context.Context, l listAnswer) error {
	s.listing = false
	switch {
	case etcd.IsAuthError(l.err):
		return l.err
	case l.err != nil:
		s.log.Debug("periodic listing failed, continuing the watch", "err", l.err)
		return nil
	case l.listing.cluster != s.cluster || l.listing.revision < s.asked:
		s.rolledBack(l.listing.header())
		s.apply(ctx, l.listing, nil, relistBack)
		return errRolledBack
	}
	if s.pending <= maxSince {
		s.apply(ctx, l.listing, s.since, relistPeriodic)
	}
	s.since = nil
	return nil
}

// remember keeps the events that arrive while a listing is in progress, up to maxSince bytes.
func (s *session) remember(events []*clientv3.Event) {
	for _, e := range events {
		s.pending += len(e.Kv.Key) + len(e.Kv.Value)
	}
	if s.pending > maxSince {
		s.since = nil
		return
	}
	s.since = append(s.since, events...)
}
