package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nuncio/internal/testkit"
)

// cpu returns the processor time of a process so far, of itself alone.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var user, system int
	if _, err := fmt.Sscan(strings.Join(strings.Fields(rest)[11:13], " "), &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// requests sends n requests over one connection.
func (l *labels) requests(n int) {
	l.t.Helper()
	conn, err := net.Dial("tcp", l.http)
	if err != nil {
		l.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute)) // a TCP connection takes one
	r := bufio.NewReader(conn)
	for i := range n {
		if _, err := fmt.Fprintf(conn, "GET /request-%d HTTP/1.1\r\nHost: none.example.com\r\n\r\n", i); err != nil {
			l.t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			l.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.Close {
			l.t.Fatalf("HAProxy closes the connection after %s", resp.Status)
		}
	}
}

// TestTheAccessLogGoesPastNuncio counts lines and processor time, and then lets nobody read the log.
func TestTheAccessLogGoesPastNuncio(t *testing.T) {
	t.Parallel()
	all := testkit.HAProxies(t)
	for _, h := range []testkit.HAProxy{all[0], all[len(all)-1]} {
		testTheAccessLog(t, h)
	}
}

func testTheAccessLog(t *testing.T, h testkit.HAProxy) {
	t.Run("haproxy-"+h.Version, func(t *testing.T) {
		t.Parallel()
		l := newLabels(t, h, "log=on")
		for i, a := range l.args {
			l.args[i] = strings.Replace(a, "log=off;", "", 1)
		}
		l.service("web", "http.host", "none.example.com")
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close()
		l.stdout = write
		l.start()
		write.Close()
		lines := make(chan string, 1<<16)
		go func() {
			for s := bufio.NewScanner(read); s.Scan(); {
				lines <- s.Text()
				if strings.Contains(s.Text(), "/the-last") {
					return // and read no more
				}
			}
		}()
		l.serves("none.example.com", "web")
		l.inStep()
		const n = 4000
		before := cpu(t, l.process.Process.Pid)
		l.requests(n)
		used := cpu(t, l.process.Process.Pid) - before
		if _, err := l.get("none.example.com", "/the-last"); err != nil {
			t.Fatal(err)
		}
		logged, last, timeout := 0, false, time.After(20*time.Second)
		for !last {
			select {
			case line := <-lines:
				if strings.Contains(line, "/request-") {
					logged++
				}
				last = strings.Contains(line, "/the-last")
			case <-timeout:
				t.Errorf("the last line is not on nuncio's standard output")
				last = true
			}
		}
		own, err := os.ReadFile(l.log.Name())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d requests, %d lines, %v of nuncio's processor time", n, logged, used)
		// Through nuncio it was 49 us a line.
		if logged < n*9/10 || used > n*15*time.Microsecond || strings.Contains(string(own), "/request-") {
			t.Errorf("%d of %d lines past nuncio, %v of its processor time, lines in its own log: %v", logged, n, used, strings.Contains(string(own), "/request-"))
		}
		if !strings.Contains(string(own), "program=haproxy") {
			t.Errorf("HAProxy's messages are not in nuncio's log:\n%s", own)
		}
		l.requests(3000) // far more than fits into a pipe that nobody reads
		l.serves("none.example.com", "web")
	})
}

// A line of nuncio's log survives a file that HAProxy has made non-blocking.
func TestALineWaitsForItsReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(fd), path) // it takes the descriptor for a blocking one, as nuncio does with its own
	defer w.Close()
	if err := syscall.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	r, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	const lines = 5000
	go func() {
		for i := range lines {
			fmt.Fprintf(patientLog{w}, "line %040d\n", i)
		}
	}()
	time.Sleep(50 * time.Millisecond)
	s := bufio.NewScanner(r)
	for i := range lines {
		if !s.Scan() || s.Text() != fmt.Sprintf("line %040d", i) {
			t.Fatalf("line %d: %q, %v", i, s.Text(), s.Err())
		}
	}
}
