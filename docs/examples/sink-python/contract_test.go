//go:build linux

package sinkpython_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/host"
	"github.com/callbackd/callbackd/plugins/sinktest"
)

// timeout is long, because the machine may be busy with other tests.
const timeout = 30 * time.Second

// TestContract holds the sinks to what every plugin has to keep to, in any
// language.
func TestContract(t *testing.T) {
	t.Parallel()
	python := python(t)
	script, err := filepath.Abs("sink.py")
	if err != nil {
		t.Fatal(err)
	}
	probe, err := filepath.Abs(probe)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		dir := shortDir(t)
		sinktest.Run(t, sinktest.Options{
			Command:  []string{python, script},
			Settings: map[string]any{"path": filepath.Join(dir, "events.db"), "label": "x"},
			Refused: []sinktest.Refused{
				{Settings: map[string]any{"path": filepath.Join(dir, "events.db"), "table": "a b"}, Path: []any{"table"}},
				{Settings: map[string]any{}, Path: []any{"path"}},
			},
			Dir:     dir,
			Timeout: timeout,
		})
	})
	t.Run("probe", func(t *testing.T) {
		t.Parallel()
		sinktest.Run(t, sinktest.Options{
			Command:        []string{python, probe},
			Settings:       map[string]any{"name": "x"},
			Env:            []string{"TMPDIR=" + shortDir(t)},
			Failing:        func(e *host.Event) { e.Type = "retry" },
			Slow:           func(e *host.Event) { e.Type = "sleep" },
			PlainTransport: true,
			// Those that take deliveries which fail or last.
			Rules:   []string{"failure", "mixed-batch", "concurrent-calls", "deadline", "cancelled-call", "check-busy", "close-busy"},
			Timeout: timeout,
		})
	})
}
