package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/config"
)

// Programs that never say what they are do not hold up the list for longer than
// it may take, and each is a line.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 2*listTogether + 1 {
		program := filepath.Join(dir, fmt.Sprintf("callbackd-sink-hangs%d", i))
		if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 600\n"), 0o700); err != nil { //nolint:gosec // a program
			t.Fatal(err)
		}
	}
	cfg := config.Empty(dir, config.Options{PluginDir: dir})
	types, err := cfg.PluginTypes()
	if err != nil || len(types) != 2*listTogether+1 {
		t.Fatalf("types %v, %v", types, err)
	}
	ctx, stop := context.WithTimeoutCause(t.Context(), 500*time.Millisecond, errors.New("it is over"))
	defer stop()
	start := time.Now()
	plugins := listPlugins(ctx, cfg, types, false)
	if took := time.Since(start); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	for i, p := range plugins {
		if p.Type != types[i] || p.Error != "it is over" || p.Version != "" {
			t.Errorf("%+v", p)
		}
	}
	table := pluginTable(plugins)
	if n := strings.Count(table, "\n"); n != len(types)+1 {
		t.Errorf("%d lines:\n%s", n, table)
	}
}

func TestPluginTable(t *testing.T) {
	t.Parallel()
	table := pluginTable([]listedPlugin{
		{Type: "a", Version: "1\x1b[2J", Command: []string{"/x/a", "b"}, Pinned: true, Doc: "First  one. Second one."},
		{Type: "b", Error: "several\nlines\u202e", Doc: "not shown"},
	})
	want := "TYPE  VERSION     PINNED  PROGRAM  DOC\n" +
		"a     1\\u001b[2J  yes     /x/a b   First one.\n" +
		"b     -           no      -        error: several lines\\u202e\n"
	if table != want {
		t.Errorf("got\n%swant\n%s", table, want)
	}
}
