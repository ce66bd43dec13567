package watch

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/connectivity"

	"nuncio/internal/etcd"
)

const (
	// askEvery is how often the store is asked to prove that the watch is alive, and silentAfter how long it may
	// owe the proof. etcd by itself says something every ten minutes.
	askEvery     = time.Second
	silentAfter  = 5 * time.Second
	mostPatience = 40 * time.Second
	// mostSince is how many bytes of events are kept for a listing that is on its way; beyond that the listing is given
	// up, since the watch has everything anyway.
	mostSince = 32 << 20
)

var (
	errCompacted = errors.New("the revisions to watch from were compacted")
	errAdopted   = errors.New("a listing replaced what was watched")
	errSilent    = errors.New("the watch is silent")
	errBehind    = errors.New("the store names an older revision or another cluster")
	errClosed    = errors.New("the watch was closed")
	errBroken    = errors.New("the connection broke")
)

// session is one set of watches, one per range.
type session struct {
	*follower
	answers chan answer
	lists   chan listAnswer
	broken  chan struct{}

	listing bool              // a periodic listing is on its way,
	asked   int64             // f.revision when it was asked for,
	since   []*clientv3.Event // and the events that came since then
	pending int               // their bytes
}

type answer struct {
	at   int // the range
	resp clientv3.WatchResponse
	open bool
}

type listAnswer struct {
	listing listing
	err     error
}

// watch follows all ranges until something is wrong, and returns what.
func (f *follower) watch(ctx context.Context) error {
	// RequireLeader makes a member that lost its cluster end the watch instead of going silent.
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	s := &session{follower: f, answers: make(chan answer), lists: make(chan listAnswer, 1), broken: make(chan struct{})}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range f.ranges {
		from := f.seen[i]
		wg.Go(func() { s.forward(wctx, i, from) })
	}
	wg.Go(func() { s.ask(wctx) })
	wg.Go(func() { s.attend(wctx) })

	silence, relist := time.NewTimer(f.patience), time.NewTimer(f.untilRelist())
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
			if f.checkSoon && !s.listing {
				relist.Reset(f.untilRelist())
			}
		case <-s.broken:
			return errBroken
		case <-relist.C:
			s.listing, s.asked, s.since, s.pending = true, f.revision, nil, 0
			wg.Go(func() {
				l, err := list(wctx, f.client, f.ranges, requestTimeout)
				s.lists <- listAnswer{l, err}
			})
		case l := <-s.lists:
			if err := s.compare(ctx, l); err != nil {
				return err
			}
			relist.Reset(f.untilRelist())
		case <-silence.C:
			// Where every answer takes that long, the next watch gets more time.
			f.patience = min(2*f.patience, mostPatience)
			return errSilent
		}
	}
}

// forward opens the watch of one range and passes its answers on. It begins with the revision that is known, not the
// one after it: while nothing new was written etcd leaves progress requests for a watch of a future revision
// unanswered (3.5 and later), and silence must mean a dead watch.
func (s *session) forward(ctx context.Context, at int, revision int64) {
	watch := s.client.Watch(ctx, s.ranges[at], clientv3.WithPrefix(), clientv3.WithRev(revision),
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

// attend tells when the connection breaks. The client makes a new one and opens the watch again by itself, from the next
// revision, and says nothing: a store that was replaced meanwhile, and is further on already, would pass for the same.
func (s *session) attend(ctx context.Context) {
	conn, was := s.client.ActiveConnection(), false
	for {
		state := conn.GetState()
		if was && state != connectivity.Ready {
			close(s.broken)
			return
		}
		was = was || state == connectivity.Ready
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

func (s *session) ask(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			_ = s.client.RequestProgress(ctx) // without an answer the silence is noticed
		case <-ctx.Done():
			return
		}
	}
}

// handle takes one answer of a watch. Only events move f.seen: etcd before 3.4.25 and 3.5.8 may answer a progress
// request with a revision of which it has not sent the events yet.
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
		// A member that lags behind is no proof that the store went back: a linearizable read decides.
		if h.Revision < s.revision || h.ClusterId != s.cluster {
			return errBehind
		}
		s.confirmed(h)
	}
	s.backoff.Reset()
	s.patience = silentAfter
	return nil
}

// compare takes the periodic listing.
func (s *session) compare(ctx context.Context, l listAnswer) error {
	s.listing = false
	switch {
	case etcd.IsAuthError(l.err):
		return l.err
	case l.err != nil:
		s.log.Debug("periodic listing failed, the watch goes on", "err", l.err)
		return nil
	case l.listing.cluster != s.cluster || l.listing.revision < s.asked:
		s.wentBack(&etcdserverpb.ResponseHeader{Revision: l.listing.revision, ClusterId: l.listing.cluster})
		s.adopt(ctx, l.listing, nil, relistBack)
		return errAdopted
	}
	if s.pending <= mostSince {
		s.adopt(ctx, l.listing, s.since, relistPeriodic)
	}
	s.since = nil
	return nil
}

// remember keeps events that came while a listing is on its way, as long as they are not too many.
func (s *session) remember(events []*clientv3.Event) {
	for _, e := range events {
		s.pending += len(e.Kv.Key) + len(e.Kv.Value)
	}
	if s.pending > mostSince {
		s.since = nil
		return
	}
	s.since = append(s.since, events...)
}
