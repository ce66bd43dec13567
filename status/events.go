package status

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"time"
)

const (
	// mostEyes bounds the streams: each of them costs a comparison per second and asks HAProxy for its health.
	mostEyes  = 100
	lookEvery = time.Second
	// restBetween keeps a burst of applies from making every browser load the page as often.
	restBetween = 250 * time.Millisecond
	heartbeat   = 15 * time.Second
)

// event is what a stream carries: enough for a script that waits for a revision, and the sign to look again for a page.
type event struct {
	State      string `json:"state"`
	Ready      bool   `json:"ready"`
	InStep     bool   `json:"in_step"`
	Revision   int64  `json:"revision"`
	Applied    int64  `json:"applied_revision"`
	Generation int64  `json:"applied_generation"`
}

// events streams one event at once and one after each change, until the client goes or the server ends.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	defer s.eyes.Add(-1)
	if s.eyes.Add(1) > mostEyes {
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
	ctx, last, spoke := r.Context(), uint64(0), time.Now()
	for {
		changed := s.changed()
		if text, mark := s.look(ctx); mark != last {
			last, spoke = mark, time.Now()
			if !send("data: " + text + "\n\n") {
				return
			}
			if !pause(ctx, nil, restBetween) {
				return
			}
		} else if time.Since(spoke) > heartbeat {
			spoke = time.Now()
			if !send(": still here\n\n") {
				return
			}
		}
		if !pause(ctx, changed, lookEvery) {
			return
		}
	}
}

// pause waits for the bell or for d; false when ctx has ended.
func pause(ctx context.Context, bell <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-bell:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

func (s *Server) changed() <-chan struct{} {
	if s.opts.Changed == nil {
		return nil
	}
	return s.opts.Changed()
}

// look makes the text of an event, and a mark that is another one whenever the page would look different.
func (s *Server) look(ctx context.Context) (text string, mark uint64) {
	o := s.overview()
	b, err := json.Marshal(event{o.State, o.Ready, o.InStep, s.snapshot().Revision, o.Applied.Revision, o.Applied.Generation})
	if err != nil {
		return "", 0 // numbers and words always encode
	}
	// What only tells the time is no change.
	o.Time, o.Store.LastSync, o.Store.SyncAge = time.Time{}, time.Time{}, 0
	h := fnv.New64a()
	_ = json.NewEncoder(h).Encode(o) // a hash takes everything
	alive := s.health.get(ctx)
	fmt.Fprintf(h, "%p %v", s.snapshot(), alive.err)
	alive.hash(h)
	return string(b), max(h.Sum64(), 1)
}

// hash adds what people watch of the servers, in any order the same.
func (s *servers) hash(h io.Writer) {
	var sum uint64
	for _, list := range s.byName {
		for _, server := range list {
			one := fnv.New64a()
			fmt.Fprintln(one, server.Backend, server.Name, server.Status, server.Weight, server.Addr, server.Check, server.CheckInfo)
			sum += one.Sum64()
		}
	}
	fmt.Fprint(h, sum)
}
