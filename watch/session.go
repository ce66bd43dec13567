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
)

const (
	// probeEvery is how often the store is asked to prove that the watch is alive, and silentAfter how long the answer may
	// take. By itself etcd sends something every ten minutes.
	probeEvery      = time.Second
	silentAfter     = 5 * time.Second
	maxSilenceLimit = 40 * time.Second
	// headerEvery is how often a store that leaves requests for progress unanswered is asked whether it is there at all.
	headerEvery = 5 * time.Second
	// stableAfter is how long a watch must work before the next failure counts as the first one.
	stableAfter = 5 * time.Second
)

var (
	errCompacted  = errors.New("the revisions to watch from were compacted")
	errRolledBack = errors.New("a listing replaced the watched content")
	errSilent     = errors.New("the watch is silent")
	errBehind     = errors.New("the store reports an older revision or a different cluster")
	errClosed     = errors.New("the watch was closed")
	errBroken     = errors.New("the connection broke")
	errIncomplete = errors.New("the watch has left something out, and nothing else proves that it is alive")
)

// session is one set of watches, one per range, and the comparisons beside them.
type session struct {
	*etcdWatcher
	comparison
	began   time.Time
	answers chan answer
	headers chan headerAnswer
	broken  chan struct{} // closed when the connection is lost

	opened     int     // watches that the store has confirmed
	newest     []int64 // per range: the newest revision that its watch has reported
	progressed bool    // a request for progress was answered
	// headersOnly is closed when the store turns out to leave such requests unanswered, as etcd's grpc-proxy does.
	headersOnly chan struct{}
	asksHeaders bool // headersOnly is closed,
	announced   bool // and that is in the log
}

type answer struct {
	at      int // index of the range
	resp    clientv3.WatchResponse
	created bool // the watch begins
	open    bool
}

type headerAnswer struct {
	header *etcdserverpb.ResponseHeader
	err    error
}

// watch follows all ranges until ctx ends, and then returns nil, or until a watch fails, and then returns why.
func (w *etcdWatcher) watch(ctx context.Context) error {
	// With RequireLeader a member that lost its cluster ends the watch instead of going silent.
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	s := &session{
		etcdWatcher: w, comparison: newComparison(w.untilCompare()), began: time.Now(),
		answers: make(chan answer), headers: make(chan headerAnswer), broken: make(chan struct{}),
		newest: append([]int64(nil), w.seen...), headersOnly: make(chan struct{}),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	defer s.stop()
	for i := range w.ranges {
		from := w.seen[i]
		wg.Go(func() { s.forward(wctx, i, from) })
	}
	wg.Go(func() { s.guard(wctx) })
	wg.Go(func() { s.probe(wctx) })
	return s.loop(ctx, wctx, &wg)
}

// loop takes what the goroutines of the session report.
func (s *session) loop(ctx, wctx context.Context, wg *sync.WaitGroup) error {
	silence := time.NewTimer(s.silenceLimit)
	defer silence.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case a := <-s.answers:
			select {
			case <-s.broken: // this may be an answer of a different store
				return errBroken
			default:
			}
			err = s.handle(ctx, a)
			silence.Reset(s.patience())
		case h := <-s.headers:
			err = s.takeHeader(h)
			silence.Reset(s.patience())
		case <-s.broken:
			return errBroken
		case <-s.due.C:
			s.begin(wctx, wg)
		case c := <-s.censuses:
			err = s.takeCensus(c)
		case <-s.settled.C:
			s.decide(wctx, wg)
		case l := <-s.lists:
			err = s.takeListing(ctx, l)
		case <-s.roomy:
			s.wantListing(time.Now())
		case <-silence.C:
			if s.opened < len(s.ranges) || s.progressed || s.asksHeaders {
				// The next watch gets more time: perhaps every answer takes that long.
				s.silenceLimit = min(2*s.silenceLimit, maxSilenceLimit)
				return errSilent
			}
			// Is it the watch that is dead, or does this server not answer requests for progress?
			s.asksHeaders = true
			close(s.headersOnly)
			silence.Reset(s.patience())
		}
		if err != nil {
			return err
		}
		if s.checkSoon && s.phase == idle {
			s.due.Reset(s.untilCompare())
		}
		if s.phase == settling && s.caughtUp() {
			s.decide(wctx, wg)
		}
	}
}

// forward opens the watch of one range, which blocks until the store has answered, and passes its answers on. The watch
// begins with the known revision, not with the one after it: until something is written, etcd 3.5 and later leave
// progress requests for a watch of a future revision unanswered, and silence must mean a dead watch.
func (s *session) forward(ctx context.Context, at int, revision int64) {
	watch := s.client.Watch(ctx, s.ranges[at], clientv3.WithRange(rangeEnd(s.ranges[at])), clientv3.WithRev(revision),
		clientv3.WithProgressNotify(), clientv3.WithFragment())
	for a := (answer{at: at, created: true, open: true}); ; {
		select {
		case s.answers <- a:
		case <-ctx.Done():
			return
		}
		if !a.open {
			return
		}
		a = answer{at: at}
		a.resp, a.open = <-watch
	}
}

// guard closes s.broken when the connection is lost: the client reconnects and resumes the watch without a word, so a store
// that was replaced meanwhile and is further on already would pass for the same one.
func (s *session) guard(ctx context.Context) {
	// The store has just answered. Without a connection it has been lost since.
	if s.client.ActiveConnection().WaitForStateChange(ctx, connectivity.Ready) {
		close(s.broken)
	}
}

// probe asks for a sign of life.
func (s *session) probe(ctx context.Context) {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	ask, headersOnly := s.requestProgress, s.headersOnly
	for {
		select {
		case <-ctx.Done():
			return
		case <-headersOnly:
			ask, headersOnly = s.readHeader, nil
			tick.Reset(headerEvery)
		case <-tick.C:
		}
		ask(ctx)
	}
}

func (s *session) requestProgress(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeEvery)
	defer cancel()
	_ = s.client.RequestProgress(ctx) // a missing answer is noticed as silence
}

// readHeader asks for a key that need not exist: the first range itself, since that needs no further permission.
func (s *session) readHeader(ctx context.Context) {
	var a headerAnswer
	resp, err := get(ctx, s.client, firstTimeout, s.ranges[0], clientv3.WithLimit(1))
	if a.err = err; err == nil {
		a.header = resp.Header
	}
	select {
	case s.headers <- a:
	case <-ctx.Done():
	}
}

// patience is how long nothing may come from the store. In place of an answer to a request for progress comes a header.
func (s *session) patience() time.Duration {
	if s.asksHeaders {
		return headerEvery + 2*firstTimeout
	}
	return silentAfter
}

// takeHeader takes the answer to a request for a header. It says that the store is there and still the same; what the
// watch leaves out, comparisons find.
func (s *session) takeHeader(a headerAnswer) error {
	switch {
	case a.err != nil:
		return a.err
	case a.header.Revision < s.revision || a.header.ClusterId != s.cluster:
		return errBehind
	case !s.announced:
		s.announced = true
		s.log.Info("store leaves requests for progress unanswered, as etcd's grpc-proxy does; it is asked for a header instead", "every", headerEvery)
	}
	s.confirmed(a.header)
	s.settle()
	return nil
}

// settle notes that the session works.
func (s *session) settle() {
	if time.Since(s.began) > stableAfter {
		s.backoff.Reset()
	}
	s.silenceLimit = silentAfter
}

// handle takes one answer of a watch. Only events move w.seen: etcd before 3.4.25 and 3.5.8 may answer a progress
// request with a revision whose events it has not sent yet.
func (s *session) handle(ctx context.Context, a answer) error {
	switch err := a.resp.Err(); {
	case !a.open:
		return errClosed
	case a.created:
		s.opened++
		return nil
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
		s.ledger.follow(u.events)
		s.emit(ctx, u)
		s.remember(u.events)
	}
	s.progressed = s.progressed || a.resp.IsProgressNotify()
	if h := a.resp.Header; h.Revision != 0 {
		// That does not prove that the store was rolled back: a linearizable read decides. Answers to reads may be newer
		// than those of a watch, which come by a different way.
		if h.Revision < s.newest[a.at] || h.ClusterId != s.cluster {
			return errBehind
		}
		s.newest[a.at] = h.Revision
		s.confirmed(h)
	}
	s.settle()
	return nil
}
