package watch_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// lines is a log handler that keeps what was said at info and above.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	l.text = append(l.text, text)
	return nil
}

// has tells whether exactly n lines contain part.
func (l *lines) has(part string, n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := 0
	for _, line := range l.text {
		if strings.Contains(line, part) {
			found++
		}
	}
	if found != n {
		return fmt.Errorf("the log has %q %d times, want %d:\n%s", part, found, n, strings.Join(l.text, "\n"))
	}
	return nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.text, "\n")
}
