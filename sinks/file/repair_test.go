package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRepair(t *testing.T) {
	const whole = `{"specversion":"1.0","id":"01J","data":{"a":1}}`
	long := strings.Repeat("x", 3*tailBlock+17)
	for _, tt := range []struct {
		name       string
		before     string
		event, any string // after, with format event and format body
	}{
		{"empty", "", "", ""},
		{"whole lines", "a\nb\n", "a\nb\n", "a\nb\n"},
		{"only line breaks", "\n\n", "\n\n", "\n\n"},
		{"half an event", "a\n" + whole[:30], "a\n", "a\n" + whole[:30] + "\n"},
		{"half an event alone", whole[:30], "", whole[:30] + "\n"},
		{"one byte of an event", whole + "\n{", whole + "\n", whole + "\n{\n"},
		{"half a long event", "a\n" + whole[:30] + long, "a\n", "a\n" + whole[:30] + long + "\n"},
		{"an event without its line break", "a\n" + whole, "a\n" + whole + "\n", "a\n" + whole + "\n"},
		{"somebody else's text", "a\nhand-written", "a\nhand-written\n", "a\nhand-written\n"},
		{"somebody else's long text", long, long + "\n", long + "\n"},
		{"somebody else's JSON", "a\n{\"x\":", "a\n{\"x\":\n", "a\n{\"x\":\n"},
		{"zero bytes after a power failure", "a\n\x00\x00\x00", "a\n", "a\n"},
		{"half an event and zero bytes", "a\n" + whole[:30] + "\x00\x00", "a\n", "a\n" + whole[:30] + "\x00\x00\n"},
		{"an event and zero bytes", "a\n" + whole + "\x00", "a\n", "a\n" + whole + "\x00\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for format, want := range map[string]string{formatEvent: tt.event, formatBody: tt.any} {
				path := filepath.Join(t.TempDir(), "f")
				write(t, path, tt.before)
				h, err := openTarget(path, 0o640)
				if err != nil {
					t.Fatal(err)
				}
				torn := tornEvent
				if format == formatBody {
					torn = tornBody
				}
				size, err := repair(h, int64(len(tt.before)), torn)
				if err != nil {
					t.Fatal(err)
				}
				_ = h.Close()
				if got := read(t, path); got != want || size != int64(len(want)) {
					t.Errorf("format %s: %d bytes, size said %d; want %d", format, len(got), size, len(want))
				}
			}
		})
	}
}

func TestTornLineIsRepairedBeforeTheFirstAppend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	write(t, path, "one\n"+eventHead+`"id":"01`)
	cfg := bodyConfig(path)
	cfg.Format = formatEvent
	s := start(t, cfg)
	b := s.writer.newBatch()
	b.lines = append(b.lines, "two\n"...)
	if err := s.writer.append(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	wantFile(t, path, "one\ntwo\n")
}

func TestLastLineIsReadInBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	tail := strings.Repeat("0123456789abcdef", 20_000)
	write(t, path, "first\n"+tail)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := lastLine(diskFile{f}, int64(len("first\n"+tail)))
	if err != nil || string(got) != tail {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(tail))
	}
}
