package sink

import (
	"context"
	"io"
	"log/slog"
	"strings"
)

// newLogger returns a logger that writes lines as hclog does, because that is
// what hosts of go-plugin read on a plugin's standard error: one JSON object a
// line with @level (debug, info, warn, error), @message, @timestamp
// (2006-01-02T15:04:05.000000Z07:00) and the attributes beside them. Groups are
// nested objects.
func newLogger(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(&logHandler{inner: slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: hclogAttr})})
}

// logHandler marks the author's attributes whose keys slog or hclog use
// themselves, so that none of them can pass for a part of the record.
type logHandler struct {
	inner slog.Handler
	// grouped: attributes go into a group, where their keys collide with nothing.
	grouped bool
}

const (
	timestampFormat = "2006-01-02T15:04:05.000000Z07:00"
	mark0           = "\x00"
)

func (h *logHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.inner.Enabled(ctx, level)
}

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	if !h.grouped {
		marked := slog.NewRecord(record.Time, record.Level, record.Message, record.PC)
		record.Attrs(func(attr slog.Attr) bool {
			marked.AddAttrs(markAttr(attr))
			return true
		})
		record = marked
	}
	return h.inner.Handle(ctx, record)
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if !h.grouped {
		marked := make([]slog.Attr, len(attrs))
		for i, attr := range attrs {
			marked[i] = markAttr(attr)
		}
		attrs = marked
	}
	return &logHandler{inner: h.inner.WithAttrs(attrs), grouped: h.grouped}
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	if !h.grouped {
		name = strings.TrimLeft(name, "@")
	}
	return &logHandler{inner: h.inner.WithGroup(name), grouped: true}
}

func markAttr(attr slog.Attr) slog.Attr {
	attr.Key = strings.TrimLeft(attr.Key, "@"+mark0)
	switch attr.Key {
	case slog.TimeKey, slog.LevelKey, slog.MessageKey:
		attr.Key = mark0 + attr.Key
	case "":
		// A group without a name: its attributes are inlined.
		if group := attr.Value.Resolve(); group.Kind() == slog.KindGroup {
			members := group.Group()
			marked := make([]slog.Attr, len(members))
			for i, member := range members {
				marked[i] = markAttr(member)
			}
			attr.Value = slog.GroupValue(marked...)
		}
	}
	return attr
}

// hclogAttr renames the parts of a record and takes the marks off.
func hclogAttr(groups []string, attr slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return attr
	}
	switch attr.Key {
	case slog.TimeKey:
		return slog.String("@timestamp", attr.Value.Time().Format(timestampFormat))
	case slog.LevelKey:
		return slog.String("@level", levelName(attr.Value.Any()))
	case slog.MessageKey:
		return slog.Attr{Key: "@message", Value: attr.Value}
	}
	attr.Key = strings.TrimPrefix(attr.Key, mark0)
	return attr
}

// levelName returns the name of the level at or below, as hclog has no others.
func levelName(v any) string {
	level, _ := v.(slog.Level)
	switch {
	case level >= slog.LevelError:
		return "error"
	case level >= slog.LevelWarn:
		return "warn"
	case level >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}
