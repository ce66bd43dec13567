package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// terminal reports whether w is a terminal.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// paint colors words, but only on a terminal and if NO_COLOR is not set (https://no-color.org).
type paint bool

func (s *streams) paint() paint {
	noColor, _ := s.getenv("NO_COLOR")
	term, _ := s.getenv("TERM")
	return paint(noColor == "" && term != "dumb" && terminal(s.out))
}

func (p paint) in(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p paint) good(text string) string  { return p.in("32", text) }
func (p paint) warn(text string) string  { return p.in("33", text) }
func (p paint) bad(text string) string   { return p.in("31", text) }
func (p paint) faint(text string) string { return p.in("2", text) }
func (p paint) bold(text string) string  { return p.in("1", text) }

// sanitize makes text from outside safe for a terminal: it replaces control characters.
func sanitize(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, text)
}

// showWaiting shows on a terminal, after a second, what the command is waiting for. The function that it returns ends that
// and removes the line; it may be called again.
func showWaiting(s *streams, what string) (stop func()) {
	if !terminal(s.err) {
		return func() {}
	}
	end := make(chan struct{})
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for seconds := 1; ; seconds++ {
			select {
			case end <- struct{}{}:
				return
			case <-tick.C:
				fmt.Fprintf(s.err, "\r\x1b[K%s… %d s", what, seconds)
			}
		}
	}()
	return sync.OnceFunc(func() {
		<-end
		fmt.Fprint(s.err, "\r\x1b[K")
	})
}

// indent puts prefix before every line of a text.
func indent(text, prefix string) string {
	return prefix + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n"+prefix)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// fit truncates text that is too wide for a terminal of 80 columns.
func fit(text string, width int) string {
	line := []rune(firstLine(text))
	if len(line) > width {
		return string(line[:width-1]) + "…"
	}
	return string(line)
}

// firstLine returns the first line of text that is safe to print, with a mark if there are more.
func firstLine(text string) string {
	line, rest, _ := strings.Cut(sanitize(text), "\n")
	if strings.TrimSpace(rest) != "" {
		line += "…"
	}
	return line
}
