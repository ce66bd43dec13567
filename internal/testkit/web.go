package testkit

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Web is a web server that answers every request with its name. "?wait=1s" delays the answer.
type Web struct {
	Name   string
	Addr   string
	server *http.Server
	active atomic.Int64
}

// StartWeb listens on addr, where an earlier one listened, or on a new address when addr is empty.
func StartWeb(t testing.TB, name, addr string) *Web {
	t.Helper()
	var l net.Listener
	if addr == "" {
		l = Listen(t)
	} else {
		var err error
		if l, err = net.Listen("tcp", addr); err != nil {
			t.Fatalf("web server %s: %v", name, err)
		}
	}
	w := &Web{Name: name, Addr: l.Addr().String()}
	w.server = &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.active.Add(1)
		defer w.active.Add(-1)
		if wait, err := time.ParseDuration(r.URL.Query().Get("wait")); err == nil {
			time.Sleep(wait)
		}
		_, _ = io.Copy(io.Discard, r.Body) // after an error no client waits for the answer
		fmt.Fprintf(rw, "%s\n", name)
	})}
	go func() { _ = w.server.Serve(l) }() // ends with ErrServerClosed in Stop
	t.Cleanup(w.Stop)
	return w
}

// Stop closes the listener and every connection.
func (w *Web) Stop() { w.server.Close() }

// Active returns the number of requests under way.
func (w *Web) Active() int { return int(w.active.Load()) }

// Get returns the body of a URL, requested over a new connection. Any status but 200 is an error.
func Get(url string) (string, error) {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return string(text), err
}

// Load requests one URL all the time, over new connections, over kept ones and with POST.
type Load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	done   atomic.Int64
	failed atomic.Int64
	first  atomic.Pointer[error]
}

// LoadResult counts requests. One without a complete answer with status 200 has failed; First is the first such error.
type LoadResult struct {
	Done, Failed int
	First        error
}

// StartLoad starts four workers that each make about 100 requests a second until Stop.
func StartLoad(url string) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Load{cancel: cancel}
	for i := range 4 {
		l.wg.Go(func() {
			// Each worker has its own kept connection; the transport does not retry a POST.
			transport := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			for ctx.Err() == nil {
				l.one(ctx, client, url, i >= 2)
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	return l
}

func (l *Load) one(ctx context.Context, client *http.Client, url string, post bool) {
	method, body := http.MethodGet, io.Reader(http.NoBody)
	if post {
		method, body = http.MethodPost, io.LimitReader(zeros{}, 1000)
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, url, body)
	if err == nil {
		err = do(client, req)
	}
	if err != nil {
		l.failed.Add(1)
		l.first.CompareAndSwap(nil, &err)
		return
	}
	l.done.Add(1)
}

func do(client *http.Client, req *http.Request) error {
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", req.Method, req.URL, resp.Status)
	}
	return nil
}

// Stop ends the load and waits for the requests under way.
func (l *Load) Stop() LoadResult {
	l.cancel()
	l.wg.Wait()
	r := LoadResult{Done: int(l.done.Load()), Failed: int(l.failed.Load())}
	if err := l.first.Load(); err != nil {
		r.First = *err
	}
	return r
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
