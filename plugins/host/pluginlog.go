package host

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of a plugin's log as a whole.
const (
	// maxRawLine is how many bytes of a line are looked at; the rest of it is
	// thrown away while it is read.
	maxRawLine = 16 << 10
	// LogLinesPerSecond is how many lines of a plugin's log are passed on, over
	// time; LogLinesBurst of them may come at once. The others are counted.
	LogLinesPerSecond = 100
	LogLinesBurst     = 500
)

// pluginLog passes the lines that a plugin writes on to the daemon's log,
// bounded in length and number. What comes too fast is counted, not kept: the
// plugin never waits for the log to catch up. It outlives the process that
// writes, and is safe for concurrent use by the streams of one.
type pluginLog struct {
	logger  *slog.Logger
	texts   texts
	printed func(Line) // nil: nobody is told; see Observer

	mu      sync.Mutex
	limit   *rate.Limiter
	dropped uint64
}

func newPluginLog(logger *slog.Logger, t texts) *pluginLog {
	return &pluginLog{
		logger: logger, texts: t,
		limit: rate.NewLimiter(LogLinesPerSecond, LogLinesBurst),
	}
}

// admit tells whether one more line may pass, and how many did not since the
// last one that did.
func (l *pluginLog) admit() (ok bool, dropped uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limit.Allow() {
		l.dropped++
		return false, 0
	}
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}

// reportDropped logs how many lines were dropped, if any were.
func (l *pluginLog) reportDropped() {
	l.mu.Lock()
	dropped := l.dropped
	l.dropped = 0
	l.mu.Unlock()
	l.logDropped(dropped)
}

func (l *pluginLog) logDropped(dropped uint64) {
	if dropped > 0 {
		l.logger.Warn("plugin logs too much: lines were dropped", "lines", dropped)
	}
}

// lineStream cuts one stream of a process into lines for the log. It is an
// io.Writer that always takes everything, for one writing goroutine.
type lineStream struct {
	log  *pluginLog
	name string

	line   []byte // what came since the last line break, up to maxRawLine
	inDump bool   // a crash report has begun

	mu    sync.Mutex
	last  []byte // the last line that is not blank
	crash []byte // the first line of a crash report
}

func newLineStream(log *pluginLog, name string) *lineStream {
	return &lineStream{log: log, name: name}
}

// Write implements io.Writer.
func (s *lineStream) Write(p []byte) (int, error) {
	n := len(p)
	for {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			s.keep(p)
			return n, nil
		}
		s.keep(p[:i])
		s.endLine()
		p = p[i+1:]
	}
}

// keep adds to the line what there is room for.
func (s *lineStream) keep(p []byte) {
	if room := maxRawLine - len(s.line); len(p) > room {
		p = p[:room]
	}
	s.line = append(s.line, p...)
}

// endLine passes the line on. It also serves as the flush of a last line that
// has no line break.
func (s *lineStream) endLine() {
	if s.log.printed != nil && len(s.line) > 0 {
		s.log.printed(Line{Stream: s.name, Text: string(s.line), Cut: len(s.line) == maxRawLine})
	}
	line := bytes.TrimRight(s.line, "\r \t")
	s.line = s.line[:0]
	if len(line) == 0 {
		return
	}
	s.remember(line)
	ok, dropped := s.log.admit()
	if !ok {
		return
	}
	s.log.logDropped(dropped)
	s.emit(line)
}

func (s *lineStream) remember(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = append(s.last[:0], line...)
	if !s.inDump && beginsCrash(line) {
		s.inDump = true
		s.crash = append(s.crash[:0], line...)
	}
}

func (s *lineStream) emit(line []byte) {
	parsed := parseLogLine(line)
	if s.inDump && line[0] != '{' {
		parsed.level = slog.LevelError // the rest of the crash report
	}
	ctx, handler := context.Background(), s.log.logger.Handler()
	if !handler.Enabled(ctx, parsed.level) {
		return
	}
	record := slog.NewRecord(time.Now(), parsed.level, s.log.texts.clean(parsed.message, MaxLogMessageLen), 0)
	record.AddAttrs(slog.String("stream", s.name))
	record.AddAttrs(parsed.attrs(s.log.texts)...)
	_ = handler.Handle(ctx, record) // as slog.Logger does: a log that fails has nobody to tell
}

// epitaph is the line that tells best why the process ended: the first of a
// crash report, else the last one. Empty: there is none.
func (s *lineStream) epitaph() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := s.last
	if len(s.crash) > 0 {
		line = s.crash
	}
	if len(line) == 0 {
		return ""
	}
	return s.log.texts.clean(parseLogLine(line).message, maxLogValueLen)
}
