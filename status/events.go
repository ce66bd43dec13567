package status

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"sync"
	"time"

	"nuncio/reload"
)

const (
	// maxStreams bounds the connections that streams hold.
	maxStreams = 100
	eventEvery = time.Second
	// eventPause keeps a burst of applies from making every browser load the page as often.
	eventPause = 250 * time.Millisecond
	heartbeat  = 15 * time.Second
)

// event is what a stream carries: enough for a script that waits for a revision, and for a page the sign to load again.
type event struct {
	State      reload.State `json:"state"`
	Ready      bool         `json:"ready"`
	InStep     bool         `json:"in_step"`
	Revision   int64        `json:"revision"`
	Applied    int64        `json:"applied_revision"`
	Generation int64        `json:"applied_generation"`
}

// events streams one event immediately and one after each change, until the client disconnects or the server ends.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	defer s.streams.Add(-1)
	if s.streams.Add(1) > maxStreams {
		writeJSON(w, http.StatusServiceUnavailable, errorDoc{"too many event streams are open"})
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no")
	stream := http.NewResponseController(w)
	send := func(text string) bool {
		// The listener's own limit on writes would end every stream after a minute.
		if stream.SetWriteDeadline(time.Now().Add(10*time.Second)) != nil {
			return false
		}
		if _, err := fmt.Fprint(w, text); err != nil {
			return false
		}
		return stream.Flush() == nil
	}
	ctx, last, sent := r.Context(), uint64(0), time.Now()
	for {
		applied, reconciled := s.opts.Applier.Changed(), s.opts.Reconciler.Changed()
		if text, digest := s.newest(ctx); digest != last {
			last, sent = digest, time.Now()
			if !send("data: " + text + "\n\n") {
				return
			}
			if !pause(ctx, eventPause) {
				return
			}
		} else if time.Since(sent) > heartbeat {
			sent = time.Now()
			if !send(": still here\n\n") {
				return
			}
		}
		if !await(ctx, applied, reconciled, eventEvery) {
			return
		}
	}
}

// pause waits for d; it returns false once ctx has ended.
func pause(ctx context.Context, d time.Duration) bool { return await(ctx, nil, nil, d) }

// await waits for one of the changes or for d; it returns false once ctx has ended.
func await(ctx context.Context, applied, reconciled <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-applied:
	case <-reconciled:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// newest is the last event, which all streams share: it costs as much for one as for a hundred.
type newest struct {
	mu                  sync.Mutex
	made                time.Time
	applied, reconciled <-chan struct{} // closed when it is out of date
	text                string
	digest              uint64 // differs whenever the page would
}

// newest returns the event of now, made at most once a second unless something has changed.
func (s *Server) newest(ctx context.Context) (text string, digest uint64) {
	n := &s.news
	n.mu.Lock()
	defer n.mu.Unlock()
	if time.Since(n.made) < eventEvery && !isClosed(n.applied) && !isClosed(n.reconciled) {
		return n.text, n.digest
	}
	n.applied, n.reconciled = s.opts.Applier.Changed(), s.opts.Reconciler.Changed()
	m := s.moment()
	o := s.overview(m)
	b, err := json.Marshal(event{o.State, o.Ready, o.InStep, m.snapshot().Revision, o.Applied.Revision, o.Applied.Generation})
	if err != nil {
		return "", 0 // numbers and words always encode
	}
	// Time that passes is no change, in numbers or in sentences.
	o.Time, o.Store.LastSync, o.Store.SyncAge, o.Reasons = time.Time{}, time.Time{}, 0, nil
	h := fnv.New64a()
	_ = json.NewEncoder(h).Encode(o) // a hash takes everything
	servers := s.servers.get(ctx)
	fmt.Fprintf(h, "%p %v %d %v", m.reconciler.Snapshot, servers.err, servers.digest, m.problems)
	n.made, n.text, n.digest = time.Now(), string(b), max(h.Sum64(), 1)
	return n.text, n.digest
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
