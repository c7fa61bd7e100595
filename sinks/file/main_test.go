package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/callbackd/callbackd/plugins/sink"
	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestMain(m *testing.M) {
	if os.Getenv(helperEnv) != "" {
		helper()
		return
	}
	sinktest.Plugin(main)
	goleak.VerifyTestMain(m)
}

// quiet is a logger for tests whose log does not matter.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs the sink until the test ends.
func start(t *testing.T, cfg Config) *fileSink {
	t.Helper()
	if cfg.Mode == "" {
		cfg.Mode = "0640"
	}
	s, err := openSink(cfg, quiet())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopOnce(t, s) })
	return s
}

// stopOnce closes the sink unless the test itself did.
func stopOnce(t *testing.T, s *fileSink) {
	t.Helper()
	select {
	case <-s.writer.stopped:
	default:
		stop(t, s)
	}
}

// stop closes the sink before the test ends.
func stop(t *testing.T, s *fileSink) {
	t.Helper()
	if err := s.Close(context.Background()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// send delivers bodies as one batch.
func send(t *testing.T, s *fileSink, bodies ...string) error {
	t.Helper()
	evs := make([]sink.Event, len(bodies))
	for i, body := range bodies {
		evs[i].Body = []byte(body)
	}
	errs := s.DeliverBatch(t.Context(), evs)
	if len(errs) != 0 && len(errs) != len(evs) {
		t.Fatalf("%d results for %d events", len(errs), len(evs))
	}
	return errors.Join(errs...)
}

func mustSend(t *testing.T, s *fileSink, bodies ...string) {
	t.Helper()
	if err := send(t, s, bodies...); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got := read(t, path); got != want {
		t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
	}
}

// rotated returns the rotated files of path, the oldest first.
func rotated(t *testing.T, path string) []string {
	t.Helper()
	files, err := newShelf(path, rotation{}, quiet()).list()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range slices.Backward(files) {
		names = append(names, filepath.Join(filepath.Dir(path), f.name))
	}
	return names
}

// eventually waits for what a goroutine in the background does to real files.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func bodyConfig(path string) Config {
	return Config{Path: sink.Path(path), Format: formatBody, Sync: syncBatch, Mode: "0640"}
}

// logged returns a logger and what it wrote.
func logged() (*slog.Logger, *bytes.Buffer) {
	var buf bytes.Buffer
	return slog.New(slog.NewTextHandler(&buf, nil)), &buf
}

// lines returns the lines of r, which must end with a line break.
func lines(t *testing.T, r io.Reader) []string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) == 0 {
		return nil
	}
	text, ok := strings.CutSuffix(string(data), "\n")
	if !ok {
		t.Errorf("the last line is torn: %q", text[strings.LastIndexByte(text, '\n')+1:])
	}
	return strings.Split(text, "\n")
}
