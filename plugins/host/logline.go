package host

import (
	"bytes"
	"log/slog"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Limits of a line of a plugin's log.
const (
	// MaxLogMessageLen is how many bytes of a line's message are kept.
	MaxLogMessageLen = 4 << 10
	maxLogFields     = 32
	maxLogKeyLen     = 64
	maxLogValueLen   = 1 << 10
)

// logLine is one line of a plugin's log, not yet masked or cut.
type logLine struct {
	level   slog.Level
	message string
	fields  []logField
}

type logField struct{ key, value string }

// parseLogLine reads a line as hclog writes it in JSON; anything else is a
// message as it stands. It takes any bytes: whatever a field holds that is not
// what hclog would put there is kept as an ordinary field.
func parseLogLine(line []byte) logLine {
	if len(line) > 0 && line[0] == '{' && gjson.ValidBytes(line) {
		if parsed, ok := parseHCLog(line); ok {
			return parsed
		}
	}
	return parsePlain(line)
}

func parsePlain(line []byte) logLine {
	out := logLine{level: slog.LevelInfo, message: validText(string(line))}
	if beginsCrash(line) {
		out.level = slog.LevelError
		return out
	}
	if rest, ok := strings.CutPrefix(out.message, "["); ok {
		if name, text, ok := strings.Cut(rest, "]"); ok {
			if level, ok := parseLevel(name); ok {
				out.level, out.message = level, strings.TrimLeft(text, " ")
			}
		}
	}
	return out
}

// beginsCrash tells whether a line is the first of a crash report of the Go
// runtime.
func beginsCrash(line []byte) bool {
	return bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: "))
}

// parseHCLog reports false where the object has no message: it is then not
// hclog's, and shown as it stands.
func parseHCLog(line []byte) (logLine, bool) {
	out := logLine{level: slog.LevelInfo}
	hasMessage := false
	gjson.ParseBytes(line).ForEach(func(key, value gjson.Result) bool {
		isText := value.Type == gjson.String
		switch name := key.String(); {
		case name == "@message" && isText && !hasMessage:
			out.message, hasMessage = validText(value.String()), true
		case name == "@level" && isText:
			if level, ok := parseLevel(value.String()); ok {
				out.level = level
			}
		case name == "@timestamp" && isText, name == "@caller" && isText:
			// The daemon's own log has a time, and callers are the author's matter.
		default:
			text := value.Raw
			if isText {
				text = value.String()
			}
			out.fields = append(out.fields, logField{
				key: validText(strings.TrimPrefix(name, "@")), value: validText(text),
			})
		}
		return len(out.fields) < maxLogFields
	})
	return out, hasMessage
}

func parseLevel(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "trace", "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "warn", "warning":
		return slog.LevelWarn, true
	case "error", "err":
		return slog.LevelError, true
	}
	return 0, false
}

func validText(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// attrs are the line's fields for the daemon's log, in a group of their own so
// that a plugin cannot pass off its words as the daemon's.
func (l logLine) attrs(t texts) []slog.Attr {
	if len(l.fields) == 0 {
		return nil
	}
	fields := make([]any, len(l.fields))
	for i, f := range l.fields {
		fields[i] = slog.String(t.clean(f.key, maxLogKeyLen), t.clean(f.value, maxLogValueLen))
	}
	return []slog.Attr{slog.Group("fields", fields...)}
}
