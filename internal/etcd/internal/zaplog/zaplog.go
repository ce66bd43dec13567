// Package zaplog gives etcd's own code, which logs with zap, a logger that writes to slog.
//
// It promises that nothing of etcd's log reaches stderr by itself and that its warnings are recognizable: every line has
// the message "etcd" and etcd's text as an attribute. It refuses to be a general bridge: names and call sites are
// dropped.
//
//	clientv3.Config{Logger: zaplog.New(logger, slog.LevelDebug)}
package zaplog

import (
	"context"
	"log/slog"
	"slices"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// New returns a zap logger that writes to logger; nil discards. Lines below etcd's warning level are dropped, and
// none is logged above the level atMost.
func New(logger *slog.Logger, atMost slog.Level) *zap.Logger {
	if logger == nil {
		return zap.NewNop()
	}
	return zap.New(&core{LevelEnabler: zapcore.WarnLevel, logger: logger, atMost: atMost})
}

type core struct {
	zapcore.LevelEnabler
	logger *slog.Logger
	atMost slog.Level
	fields []zapcore.Field
}

func (c *core) With(fields []zapcore.Field) zapcore.Core {
	with := *c
	with.fields = slices.Concat(c.fields, fields)
	return &with
}

func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) && c.logger.Enabled(context.Background(), c.level(entry.Level)) {
		return checked.AddCore(entry, c)
	}
	return checked
}

func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range slices.Concat(c.fields, fields) {
		f.AddTo(enc)
	}
	attrs := []slog.Attr{slog.String("text", entry.Message)}
	if len(enc.Fields) > 0 {
		attrs = append(attrs, slog.Any("fields", enc.Fields))
	}
	c.logger.LogAttrs(context.Background(), c.level(entry.Level), "etcd", attrs...)
	return nil
}

func (c *core) Sync() error { return nil }

func (c *core) level(l zapcore.Level) slog.Level {
	if l == zapcore.WarnLevel {
		return min(slog.LevelWarn, c.atMost)
	}
	return min(slog.LevelError, c.atMost)
}
