package reload_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"nuncio/internal/testkit"
)

// clientTimeout is how long a client waits for HAProxy on a busy machine.
const clientTimeout = 20 * time.Second

// clients are clients of many kinds, which go on until leave ends them, and count what they have lost.
type clients struct {
	quit chan struct{}
	wg   sync.WaitGroup

	mu         sync.Mutex
	done, lost map[string]int // by kind
	notes      map[string]int // by kind and error
}

func newClients() *clients {
	return &clients{quit: make(chan struct{}), done: map[string]int{}, lost: map[string]int{}, notes: map[string]int{}}
}

// count notes an exchange; one without a whole and right answer is lost.
func (c *clients) count(kind string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[kind]++
	if err != nil {
		c.lost[kind]++
		c.notes[kind+": "+err.Error()]++
	}
}

// think waits and says whether to go on. The pauses leave the processor to HAProxy, and a connection that is idle for
// a moment is the one at risk.
func (c *clients) think(pause time.Duration) bool {
	select {
	case <-c.quit:
		return false
	case <-time.After(pause):
		return true
	}
}

// leave ends all clients and returns what they counted.
func (c *clients) leave() (lost, done int, summary string) {
	close(c.quit)
	c.wg.Wait()
	var b strings.Builder
	for _, kind := range slices.Sorted(maps.Keys(c.done)) {
		lost, done = lost+c.lost[kind], done+c.done[kind]
		fmt.Fprintf(&b, "%s: %d of %d lost\n", kind, c.lost[kind], c.done[kind])
	}
	for _, note := range slices.Sorted(maps.Keys(c.notes)) {
		fmt.Fprintf(&b, "%d x %s\n", c.notes[note], note)
	}
	return lost, done, b.String()
}

// http1 sends requests over one connection for as long as HAProxy keeps it, and never repeats one.
func (c *clients) http1(kind, addr, request string, pause time.Duration) {
	c.wg.Go(func() {
		var conn *lineConn
		for c.think(pause) {
			fresh := conn == nil
			var err error
			if fresh {
				conn, err = dialLines(addr)
			}
			again := false
			if err == nil {
				again, err = conn.request(request)
			}
			if err != nil {
				err = fmt.Errorf("on a fresh connection %v: %w", fresh, err)
			}
			c.count(kind, err)
			if !again && conn != nil {
				conn.Close()
				conn = nil
			}
		}
		if conn != nil {
			conn.Close()
		}
	})
}

// h2c sends requests of several clients over one connection of HTTP/2 without TLS. The protocol has no race at the end of a
// connection: HAProxy says which request was the last that it took, and this client, as others do, repeats those after it and
// none else.
func (c *clients) h2c(addr string) {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	client := http.Client{Transport: transport, Timeout: clientTimeout}
	var users sync.WaitGroup
	for range 3 {
		users.Go(func() {
			for post := false; c.think(5 * time.Millisecond); post = !post {
				req, err := http.NewRequest(http.MethodGet, "http://"+addr+"/", http.NoBody)
				if post {
					req, err = http.NewRequest(http.MethodPost, "http://"+addr+"/", strings.NewReader("hello"))
				}
				if err == nil {
					var resp *http.Response
					if resp, err = client.Do(req); err == nil {
						err = checkPong(resp)
						if err == nil && resp.ProtoMajor != 2 {
							err = errors.New(resp.Proto)
						}
					}
				}
				c.count("h2c", err)
			}
		})
	}
	c.wg.Go(func() { users.Wait(); transport.CloseIdleConnections() })
}

// session keeps a connection for life, or until all clients leave, and exchanges a message on it now and then.
func (c *clients) session(kind, addr, hello string, life time.Duration) {
	c.wg.Go(func() {
		for c.think(0) {
			conn, err := dialLines(addr)
			if err == nil && hello != "" {
				err = conn.upgrade(hello)
			}
			for born := time.Now(); err == nil && (life == 0 || time.Since(born) < life) && c.think(50*time.Millisecond); {
				if err = conn.echo(fmt.Sprint(time.Since(born))); err == nil {
					c.count(kind, nil)
				}
			}
			if err != nil {
				c.count(kind, err)
			}
			if conn != nil {
				conn.Close()
			}
		}
	})
}

// enter brings in what uses HAProxy as its users do: an address for HTTP, and one for TCP, which may be empty.
func (c *clients) enter(web, tcp string) {
	const get, post = "GET / HTTP/1.1\r\nHost: x\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
	for range 4 {
		c.http1("keep-alive", web, get+"\r\n", 5*time.Millisecond)
		c.http1("POST", web, post+"\r\nhello", 5*time.Millisecond)
		c.http1("POST", web, post+"\r\nhello", time.Millisecond)
		c.http1("close", web, get+"Connection: close\r\n\r\n", 10*time.Millisecond)
	}
	c.h2c(web)
	if tcp == "" {
		return
	}
	// Some last for all of it, others long enough to meet several changes.
	for _, life := range []time.Duration{0, 0, 2 * time.Second, 5 * time.Second} {
		c.session("websocket", web, websocket, life)
		c.session("tcp", tcp, "", life)
	}
}

// lineConn is a connection to HAProxy.
type lineConn struct {
	net.Conn
	in *bufio.Reader
}

func dialLines(addr string) (*lineConn, error) {
	conn, err := net.DialTimeout("tcp", addr, clientTimeout)
	if err != nil {
		return nil, err
	}
	return &lineConn{conn, bufio.NewReader(conn)}, nil
}

func (c *lineConn) send(text string) error {
	if err := c.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return err
	}
	_, err := io.WriteString(c, text)
	return err
}

func (c *lineConn) request(text string) (again bool, err error) {
	if err := c.send(text); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return false, err
	}
	return !resp.Close, checkPong(resp)
}

// The handshake is the example of RFC 6455; HAProxy wants the key, and looks at nothing that follows.
const (
	websocket = "GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	websocketAnswer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)

func (c *lineConn) upgrade(hello string) error {
	if err := c.send(hello); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.in, nil)
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	return err
}

// echo sends a line and wants it back.
func (c *lineConn) echo(line string) error {
	err := c.send(line + "\n")
	if err != nil {
		return err
	}
	got, err := c.in.ReadString('\n')
	if err == nil && got != line+"\n" {
		err = fmt.Errorf("got %q, want %q", got, line)
	}
	return err
}

func checkPong(resp *http.Response) error {
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err == nil && (resp.StatusCode != http.StatusOK || string(body) != "pong") {
		err = fmt.Errorf("status %s, body %q", resp.Status, body)
	}
	return err
}

// backend answers requests with "pong", and after a handshake every line with the line.
func backend(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	var upgraded sync.WaitGroup
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return // the client notices
			}
			upgraded.Go(func() {
				defer conn.Close()
				_, _ = io.WriteString(conn, websocketAnswer)
				_, _ = io.Copy(conn, rw) // ends when HAProxy does
			})
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, "pong")
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done; upgraded.Wait() })
	return l.Addr().String()
}

// echo answers every line with the line.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", testkit.FreeAddr(t))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends when HAProxy does
			})
		}
	})
	return l.Addr().String()
}
