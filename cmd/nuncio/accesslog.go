package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// accessLog returns a file for HAProxy's own log, which goes where out goes. HAProxy writes it without blocking: where nobody
// reads it fast enough, lines are lost and no request waits. The flag for that belongs to everyone who shares the open file,
// so HAProxy gets one of its own where the kernel can open it again: a pipe or a terminal. It is nil if out is no file.
func accessLog(out io.Writer) *os.File {
	f, ok := out.(*os.File)
	if !ok {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	if mode := info.Mode(); mode&(os.ModeNamedPipe|os.ModeCharDevice) != 0 {
		// A pipe may belong to another user, as in a container without root.
		if own, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0); err == nil {
			return own
		}
	}
	return f
}

// patience is how long a line of nuncio's log waits for a reader.
const patience = 2 * time.Second

// patientLog writes nuncio's log to a file that may have become non-blocking, because HAProxy shares it: that of a
// socket of systemd's journal.
type patientLog struct{ f *os.File }

// patient returns a writer for nuncio's log.
func patient(err io.Writer) io.Writer {
	if f, ok := err.(*os.File); ok {
		return patientLog{f}
	}
	return err
}

// Write waits for a reader for a while.
func (p patientLog) Write(b []byte) (n int, err error) {
	for end := time.Now().Add(patience); ; {
		m, err := p.f.Write(b[n:])
		n += m
		if !errors.Is(err, unix.EAGAIN) || time.Now().After(end) {
			return n, err
		}
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(p.f.Fd()), Events: unix.POLLOUT}}, int(patience/time.Millisecond)) // Write says what is wrong
	}
}
