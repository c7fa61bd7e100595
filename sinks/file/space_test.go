package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is really full, where the test may mount one.
func TestAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("a small disk cannot be mounted here (%v); TestAShortWriteLeavesNothing and TestAFileSizeLimit test the same with other means", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	path := filepath.Join(dir, "audit.jsonl")
	ballast := filepath.Join(dir, "ballast")
	write(t, ballast, strings.Repeat("x", 40<<10))
	s := start(t, bodyConfig(path))
	sent := 0
	batch := func(n int) []string {
		var bodies []string
		for i := range 7 {
			bodies = append(bodies, fmt.Sprintf("%d.%d %s", n, i, strings.Repeat("y", 300)))
		}
		return bodies
	}
	var err error
	for ; sent < 100; sent++ {
		if err = send(t, s, batch(sent)...); err != nil {
			break
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("after %d batches: error %v, want one about the full disk", sent, err)
	}
	for range 3 {
		if err := send(t, s, batch(sent)...); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error %v, want one about the full disk", err)
		}
	}
	if got := len(fileLines(t, path)); got != 7*sent {
		t.Errorf("%d lines, want %d", got, 7*sent)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, batch(sent)...)
	for i, line := range fileLines(t, path) {
		if want := batch(i / 7)[i%7]; line != want {
			t.Fatalf("line %d is %.20q, want %.20q", i, line, want)
		}
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
}

// A file size limit cuts a write in the middle, without root: what the limit
// let through is taken back, and the process lives.
func TestAFileSizeLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	_, out := startHelper(t, "limit", path)
	var delivered int
	var refused string
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			break
		}
		if _, err := fmt.Sscanf(line, "delivered %d", &delivered); err != nil {
			refused = line
		}
	}
	if !strings.Contains(refused, "file too large") || !strings.Contains(refused, path) {
		t.Errorf("the helper said %q, want an error about the size and the path", refused)
	}
	if got := len(fileLines(t, path)); got != delivered || delivered == 0 {
		t.Errorf("%d lines, %d were delivered", got, delivered)
	}
}
