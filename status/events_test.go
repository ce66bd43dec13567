package status_test

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/haproxy"
)

// TestStreamsShareOneLook has many pages open while HAProxy does not answer: documents are made, and HAProxy is asked,
// once a second for all of them.
func TestStreamsShareOneLook(t *testing.T) {
	path := filepath.Join(socketDir(t), "runtime.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var questions atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			questions.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close() })
	socket := haproxy.RuntimeSocket(path, time.Second)
	e := newEnv(t, &socket)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 30 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL+"/v1/events", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
	}
	e.mu.Lock()
	before := e.asked
	e.mu.Unlock()
	asked, began := questions.Load(), time.Now()
	time.Sleep(4 * time.Second) // what is measured is what happens in this time
	spent := int(time.Since(began)/time.Second) + 2
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := e.asked - before; n > spent {
		t.Errorf("30 streams: %d documents in %v, want one a second", n, time.Since(began))
	}
	if n := int(questions.Load() - asked); n > spent || n == 0 {
		t.Errorf("30 streams: HAProxy was asked %d times in %v, want once a second", n, time.Since(began))
	}
}
