package host

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/callbackd/callbackd/plugins/sinktest/faultsink"
)

func TestParseLogLine(t *testing.T) {
	tests := []struct {
		line    string
		level   slog.Level
		message string
		fields  []logField
	}{
		{`{"@level":"warn","@message":"slow","@timestamp":"2026-01-01T00:00:00Z","@module":"s","n":1,"s":"x","o":{"a":[1]}}`, slog.LevelWarn, "slow", []logField{{"module", "s"}, {"n", "1"}, {"s", "x"}, {"o", `{"a":[1]}`}}},
		{`{"@level":"trace","@message":""}`, slog.LevelDebug, "", nil},
		{`{"@level":"panic","@message":"m"}`, slog.LevelInfo, "m", nil},
		{`{"@message":1}`, slog.LevelInfo, `{"@message":1}`, nil},
		{`{"@message":null}`, slog.LevelInfo, `{"@message":null}`, nil},
		{`{"@message":"m","@level":7,"@timestamp":{},"@caller":[]}`, slog.LevelInfo, "m", []logField{{"level", "7"}, {"timestamp", "{}"}, {"caller", "[]"}}},
		{`{"@message":"first","@message":"second"}`, slog.LevelInfo, "first", []logField{{"message", "second"}}},
		{`{"msg":"not hclog"}`, slog.LevelInfo, `{"msg":"not hclog"}`, nil},
		{`{"@message":"m"`, slog.LevelInfo, `{"@message":"m"`, nil},
		{`{"@message":"m"} trailing`, slog.LevelInfo, `{"@message":"m"} trailing`, nil},
		{`[ERROR] broken`, slog.LevelError, "broken", nil},
		{`[odd] text`, slog.LevelInfo, "[odd] text", nil},
		{`plain`, slog.LevelInfo, "plain", nil},
		{"a\xffb", slog.LevelInfo, "a\uFFFDb", nil},
		{`panic: boom`, slog.LevelError, "panic: boom", nil},
	}
	for _, test := range tests {
		got := parseLogLine([]byte(test.line))
		if got.level != test.level || got.message != test.message || len(got.fields) != len(test.fields) {
			t.Errorf("%s\n%+v", test.line, got)
			continue
		}
		for i := range got.fields {
			if got.fields[i] != test.fields[i] {
				t.Errorf("%s\nfield %d: %+v", test.line, i, got.fields[i])
			}
		}
	}
}

// FuzzPluginLog: whatever a plugin prints, in whatever pieces, the daemon's log
// stays valid and bounded, and shows no secret.
func FuzzPluginLog(f *testing.F) {
	for _, line := range faultsink.OddLines() {
		f.Add([]byte(line+"\n"), uint8(3))
	}
	f.Add([]byte(`{"@message":"key s3cr3t","s3cr3t":"s3cr3t"}`+"\r\ns3cr3t\npanic: x\n\ngoroutine 1\n"), uint8(1))
	f.Add([]byte(strings.Repeat("long", 10000)+"\nafter"), uint8(200))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var out bytes.Buffer
		log := newPluginLog(slog.New(slog.NewJSONHandler(&out, nil)),
			texts{mask: func(s string) string { return strings.ReplaceAll(s, "s3cr3t", "***") }})
		s := newLineStream(log, "stderr")
		for rest := data; len(rest) > 0; {
			n := min(len(rest), int(step)+1)
			if m, err := s.Write(rest[:n]); m != n || err != nil {
				t.Fatalf("Write: %d %v", m, err)
			}
			rest = rest[n:]
		}
		s.endLine()
		log.reportDropped()
		if len(s.line) > maxRawLine {
			t.Errorf("a line of %d bytes is held", len(s.line))
		}
		if !utf8.Valid(out.Bytes()) {
			t.Error("the log is not UTF-8")
		}
		// A secret that the line break or the cut divides is none any more.
		if strings.Contains(out.String(), "s3cr3t") || strings.Contains(s.epitaph(), "s3cr3t") {
			t.Error("a secret is in the log")
		}
		if len(s.epitaph()) > maxLogValueLen {
			t.Error("the epitaph is too long")
		}
	})
}

func TestPluginLogLimits(t *testing.T) {
	var out bytes.Buffer
	log := newPluginLog(slog.New(slog.NewTextHandler(&out, nil)), texts{mask: func(s string) string { return s }})
	s := newLineStream(log, "stderr")
	_, _ = s.Write([]byte(strings.Repeat("word ", 10000) + "\n"))
	if got := out.Len(); got > MaxLogMessageLen+200 {
		t.Errorf("a line of %d bytes", got)
	}
	for range 10 * LogLinesBurst {
		_, _ = s.Write([]byte("line\n"))
	}
	log.reportDropped()
	if n := strings.Count(out.String(), "msg=line"); n < LogLinesBurst-1 || n > 2*LogLinesBurst {
		t.Errorf("%d lines passed", n)
	}
	if !strings.Contains(out.String(), "lines were dropped\" lines=") {
		t.Error("nothing about the dropped ones")
	}
}

func TestCleanText(t *testing.T) {
	masked := texts{mask: func(s string) string { return strings.ReplaceAll(s, "secret", "***") }}
	long := masked.clean(strings.Repeat("x", 4090)+"secret", 4096)
	if long != strings.Repeat("x", 4090)+"***" {
		t.Errorf("cut before it was masked: %q", long[4080:])
	}
	if got := masked.clean("ääääää", 9); got != "äää…" {
		t.Errorf("%q", got)
	}
	if got := masked.clean("a\xffb", 10); got != "a\uFFFDb" {
		t.Errorf("%q", got)
	}
	if got := masked.clean(strings.Repeat("y", 100<<20), 10); got != "yyyyyyy…" {
		t.Errorf("%q", got)
	}
}

// FuzzHandshake: a plugin's first line is refused in one sentence or is one that
// go-plugin takes.
func FuzzHandshake(f *testing.F) {
	for _, line := range []string{"", "1|1|unix|/x|grpc|", "1|1|tcp|127.0.0.1:1|grpc|AAAA", "a|b|c|d|e|f|g", "1|1|unix|x", "9|1|unix|/x|grpc"} {
		f.Add(line, true)
	}
	f.Fuzz(func(t *testing.T, line string, plain bool) {
		log := newPluginLog(slog.New(slog.DiscardHandler), texts{mask: func(s string) string { return s }})
		c := &child{program: "p", plainText: plain, stdoutLog: newLineStream(log, "stdout")}
		if err := c.checkHandshake(line); err != nil {
			if text := err.Error(); strings.ContainsAny(text, "\n\r") || len(text) > 2000 && len(line) < 2000 {
				t.Errorf("error: %q", text)
			}
			return
		}
		if strings.Count(line, "|") < 4 {
			t.Error("taken")
		}
	})
}
