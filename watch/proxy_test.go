package watch_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"nuncio/internal/testkit"
)

// proxy is a wire between a client and a server that can be cut.
type proxy struct {
	addr   string
	target string
	mu     sync.Mutex
	isCut  bool
	conns  []net.Conn
}

func newProxy(t *testing.T, server *testkit.Etcd) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	must(t, err)
	p := &proxy{addr: l.Addr().String(), target: strings.TrimPrefix(server.Endpoint, "http://")}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	back, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer back.Close()
	p.mu.Lock()
	p.conns = append(p.conns, c, back)
	isCut := p.isCut
	p.mu.Unlock()
	if isCut {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(back, c); back.Close() }) // until it is cut
	_, _ = io.Copy(c, back)
	c.Close()
	wg.Wait()
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *proxy) join() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = false
}
