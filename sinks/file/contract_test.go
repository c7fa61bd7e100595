package main

import (
	"path/filepath"
	"testing"

	"github.com/callbackd/callbackd/plugins/sinktest"
)

func TestContract(t *testing.T) {
	dir := t.TempDir()
	sinktest.Run(t, sinktest.Options{
		Settings: map[string]any{"path": filepath.Join(dir, "events.jsonl"), "rotate": map[string]any{"max_size": "1GiB"}},
		Refused: []sinktest.Refused{
			{Settings: map[string]any{"path": dir + "/x", "mode": "0777"}, Path: []any{"mode"}},
			{Settings: map[string]any{"path": dir + "/x", "rotate": map[string]any{"max_age": "1ms"}}, Path: []any{"rotate", "max_age"}},
		},
		Dir: dir,
	})
}
