package watch_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// What a proxy does with a connection.
const (
	passOn       = "pass it on"
	closeAtOnce  = "close it at once"
	neverAnswer  = "accept it and never answer"
	resetShortly = "reset it after 60 ms" // by then the watch has begun
)

// proxy is a connection between a client and a server that can fail.
type proxy struct {
	addr     string
	target   string
	listener net.Listener
	accepted atomic.Int64
	received atomic.Int64 // bytes from the server

	mu    sync.Mutex
	mode  string
	conns []net.Conn
}

func newProxy(t *testing.T, server *testkit.Etcd) *proxy {
	t.Helper()
	l := testkit.Listen(t)
	p := &proxy{addr: l.Addr().String(), target: strings.TrimPrefix(server.Endpoint, "http://"), listener: l, mode: passOn}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.accepted.Add(1)
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		p.refuse()
		wg.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	p.conns = append(p.conns, c)
	mode := p.mode
	p.mu.Unlock()
	switch mode {
	case closeAtOnce:
		return
	case neverAnswer:
		_, _ = io.Copy(io.Discard, c) // until set closes it
		return
	case resetShortly:
		_ = c.(*net.TCPConn).SetLinger(0) // Close sends a reset
		defer time.AfterFunc(60*time.Millisecond, func() { c.Close() }).Stop()
	}
	back, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer back.Close()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(back, c); back.Close() }) // until either end closes
	_, _ = io.Copy(io.MultiWriter(c, counting{&p.received}), back)
	c.Close()
	wg.Wait()
}

type counting struct{ n *atomic.Int64 }

func (c counting) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

// set ends the open connections and changes what happens to new ones.
func (p *proxy) set(mode string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mode = mode
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// refuse ends the open connections; nothing listens at the address any more.
func (p *proxy) refuse() {
	p.listener.Close()
	p.set(closeAtOnce)
}
