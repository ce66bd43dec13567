package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// traffic requests one URL all the time, over new connections, over kept ones and with POST. It never repeats a request.
type traffic struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	result outcome
}

// outcome counts requests by how they ended.
type outcome struct {
	done    int
	servers map[string]int // by X-Served-By
	refused int            // no connection: nothing was asked
	failed  map[string]int // a request was sent and no whole answer with status 200 came
}

func (o outcome) failures() (n int) {
	for _, count := range o.failed {
		n += count
	}
	return n
}

func (o outcome) String() string {
	return fmt.Sprintf("%d requests answered by %v, %d failed %v, %d not connected", o.done, o.servers, o.failures(), o.failed, o.refused)
}

// clients is how many requests are under way at a time.
const clients = 6

// startTraffic starts the clients: about 300 requests a second on a quiet machine.
func startTraffic(t *testing.T, url string) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	tr := &traffic{cancel: cancel, result: outcome{servers: map[string]int{}, failed: map[string]int{}}}
	for i := range clients {
		tr.wg.Go(func() {
			transport := &http.Transport{DisableKeepAlives: i%2 == 0}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
			for ctx.Err() == nil {
				by, err := ask(client, url, i >= 3)
				tr.count(by, err)
				time.Sleep(15 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() { tr.stop() })
	return tr
}

func (tr *traffic) count(by string, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case err == nil:
		tr.result.done++
		tr.result.servers[by]++
	case errors.Is(err, syscall.ECONNREFUSED):
		tr.result.refused++
	default:
		text := err.Error()
		// The client's port makes equal errors differ.
		if _, rest, ok := strings.Cut(text, "->"); ok {
			text = rest
		}
		tr.result.failed[text]++
	}
}

// stop ends the traffic, waits for requests under way and returns the counts.
func (tr *traffic) stop() outcome {
	tr.cancel()
	tr.wg.Wait()
	return tr.result
}

// counts returns how many requests succeeded and failed so far.
func (tr *traffic) counts() (done int, failures int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.result.done, tr.result.failures()
}

// body is sent slowly, and the transport cannot send it a second time.
type body struct {
	left   int
	pause  time.Duration
	middle func() // called when part of it has been sent
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(b.pause)
	if b.middle != nil && b.left < 800 {
		b.middle()
	}
	n := min(len(p), b.left, 100)
	b.left -= n
	return n, nil
}

func ask(client *http.Client, url string, post bool) (by string, err error) {
	method, payload := http.MethodGet, io.Reader(nil)
	if post {
		method, payload = http.MethodPost, &body{left: 300}
	}
	return send(client, method, url, payload)
}

func send(client *http.Client, method, url string, payload io.Reader) (by string, err error) {
	req, err := http.NewRequest(method, url, payload)
	if err != nil {
		return "", err
	}
	if method == http.MethodGet {
		// net/http repeats a GET when a kept connection breaks, which would hide the loss.
		req.Body, req.GetBody = http.NoBody, func() (io.ReadCloser, error) { return nil, errors.New("a request is not repeated") }
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	page, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s", method, resp.Status)
	}
	if !strings.Contains(string(page), "Running from Docker on CoreOS") {
		return "", fmt.Errorf("%s: another page: %.60q", method, page)
	}
	return resp.Header.Get("X-Served-By"), nil
}

// slowPosts starts n requests whose bodies take d. begun returns when each has sent a part, wait when all have ended, with
// their errors.
func slowPosts(url string, n int, d time.Duration) (begun func(), wait func() []error) {
	errs := make([]error, n)
	var started, ended sync.WaitGroup
	for i := range n {
		started.Add(1)
		ended.Go(func() {
			transport := &http.Transport{DisableKeepAlives: true}
			client := &http.Client{Transport: transport, Timeout: time.Minute}
			_, errs[i] = send(client, http.MethodPost, url, &body{left: 1000, pause: d / 10, middle: sync.OnceFunc(started.Done)})
		})
	}
	return started.Wait, func() []error { ended.Wait(); return errs }
}
