package testkit

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Wire is a TCP connection to a server that a test can spoil.
type Wire struct {
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

// StartWire listens on a free address and passes everything on to target.
func StartWire(t testing.TB, target string) *Wire {
	t.Helper()
	l := Listen(t)
	w := &Wire{Addr: l.Addr().String(), listener: l, conns: map[net.Conn]bool{}, changed: make(chan struct{})}
	w.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			w.wg.Go(func() { w.serve(c, target) })
		}
	})
	t.Cleanup(w.Close)
	return w
}

// Close ends the listener and every connection.
func (w *Wire) Close() {
	w.listener.Close()
	w.Cut()
	w.wg.Wait()
}

// Slow makes each piece of data, of a few KiB, late; new connections too. 0 ends that.
func (w *Wire) Slow(by time.Duration) { w.set(func() { w.delay = by }) }

// Freeze is a half-open connection: everything stays open, and nothing arrives any more.
func (w *Wire) Freeze() { w.set(func() { w.frozen = true }) }

// Cut closes all connections and every new one.
func (w *Wire) Cut() {
	w.set(func() { w.cut = true })
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

// Join ends Cut, Freeze and Slow.
func (w *Wire) Join() { w.set(func() { w.cut, w.frozen, w.delay = false, false, 0 }) }

func (w *Wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Wire) serve(front net.Conn, target string) {
	defer front.Close()
	back, err := net.Dial("tcp", target)
	if err != nil || !w.keep(front, back) {
		return
	}
	defer back.Close()
	var both sync.WaitGroup
	both.Go(func() { w.pass(front, back) })
	w.pass(back, front)
	both.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, front)
	delete(w.conns, back)
}

func (w *Wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		if w.cut {
			c.Close()
		}
		w.conns[c] = true
	}
	return !w.cut
}

func (w *Wire) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	buf := make([]byte, 8<<10)
	for {
		n, err := from.Read(buf)
		w.hold()
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

// hold waits for as long as the data is to be late.
func (w *Wire) hold() {
	for {
		w.mu.Lock()
		frozen, cut, delay, changed := w.frozen, w.cut, w.delay, w.changed
		w.mu.Unlock()
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
