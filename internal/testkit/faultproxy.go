package testkit

import (
	"net"
	"sync"
	"testing"
	"time"
)

// FaultProxy passes TCP connections on to a server, until a test slows, freezes or cuts them.
type FaultProxy struct {
	Addr string

	mu       sync.Mutex
	changed  chan struct{}
	delay    time.Duration // for each piece of data
	frozen   bool          // data is neither passed on nor refused
	cut      bool          // new connections are closed at once
	listener net.Listener
	conns    map[net.Conn]bool
	wg       sync.WaitGroup
}

// StartFaultProxy listens on a free address and passes everything on to target.
func StartFaultProxy(t testing.TB, target string) *FaultProxy {
	t.Helper()
	l := Listen(t)
	p := &FaultProxy{Addr: l.Addr().String(), listener: l, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c, target) })
		}
	})
	t.Cleanup(p.Close)
	return p
}

// Close ends the listener and every connection.
func (p *FaultProxy) Close() {
	p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

// Slow delays each piece of data, of a few KiB, of new connections too. 0 ends that.
func (p *FaultProxy) Slow(by time.Duration) { p.set(func() { p.delay = by }) }

// Freeze makes connections half-open: everything stays open, and nothing arrives any more.
func (p *FaultProxy) Freeze() { p.set(func() { p.frozen = true }) }

// Cut closes all connections and every new one.
func (p *FaultProxy) Cut() {
	p.set(func() { p.cut = true })
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// Join ends Cut, Freeze and Slow.
func (p *FaultProxy) Join() { p.set(func() { p.cut, p.frozen, p.delay = false, false, 0 }) }

func (p *FaultProxy) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *FaultProxy) serve(front net.Conn, target string) {
	defer front.Close()
	back, err := net.Dial("tcp", target)
	if err != nil || !p.keep(front, back) {
		return
	}
	defer back.Close()
	var both sync.WaitGroup
	both.Go(func() { p.pass(front, back) })
	p.pass(back, front)
	both.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, front)
	delete(p.conns, back)
}

func (p *FaultProxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		if p.cut {
			c.Close()
		}
		p.conns[c] = true
	}
	return !p.cut
}

func (p *FaultProxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := from.Read(buf)
		p.wait()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait returns when data may be passed on.
func (p *FaultProxy) wait() {
	for {
		p.mu.Lock()
		frozen, cut, delay, changed := p.frozen, p.cut, p.delay, p.changed
		p.mu.Unlock()
		switch {
		case cut || !frozen && delay == 0:
			return
		case frozen:
			<-changed
		default:
			select {
			case <-time.After(delay):
				return
			case <-changed:
			}
		}
	}
}
