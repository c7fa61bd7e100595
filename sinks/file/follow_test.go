package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The file is moved away while events are written, as logrotate does it: every
// event that was delivered is in one of the files, as a whole line.
func TestMovedWhileEventsAreWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.jsonl")
	s := start(t, bodyConfig(path))
	moves := 0
	delivered := writeWhile(t, s, func() {
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, moves)); err == nil {
			moves++
		}
	})
	found := map[int]bool{}
	for _, name := range append(globbed(t, path+".*"), path) {
		numbers(t, name, found)
	}
	t.Logf("%d events, moved %d times", len(delivered), moves)
	missing(t, delivered, found)
	if moves < 3 {
		t.Errorf("moved %d times only", moves)
	}
}

// The file is deleted while events are written: what was delivered before is
// gone with it, what was delivered after is not.
func TestDeletedWhileEventsAreWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, bodyConfig(path))
	found := map[int]bool{}
	var deleted []*os.File
	delivered := writeWhile(t, s, func() {
		f, err := os.Open(path)
		if err != nil {
			return
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		deleted = append(deleted, f)
	})
	// What is in the deleted files, seen through the descriptors, was there to be
	// deleted; only what was delivered without being anywhere is lost.
	for _, f := range deleted {
		for _, line := range lines(t, f) {
			found[number(t, line)] = true
		}
		_ = f.Close()
	}
	numbers(t, path, found)
	t.Logf("%d events, deleted %d times", len(delivered), len(deleted))
	missing(t, delivered, found)
	if len(deleted) < 3 {
		t.Errorf("deleted %d times only", len(deleted))
	}
}

// The file is copied and truncated while events are written (logrotate's
// copytruncate): lines stay whole, there are no holes, and what was delivered
// after the last truncation is there.
func TestTruncatedWhileEventsAreWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, bodyConfig(path))
	truncations := 0
	writeWhile(t, s, func() {
		if err := os.Truncate(path, 0); err == nil {
			truncations++
		}
	})
	found := map[int]bool{}
	numbers(t, path, found) // checks every line
	after := map[int]bool{}
	for n := 1_000_000; n < 1_000_100; n++ {
		mustSend(t, s, strconv.Itoa(n))
		after[n] = true
	}
	numbers(t, path, found)
	missing(t, after, found)
	t.Logf("truncated %d times", truncations)
	if truncations < 3 {
		t.Errorf("truncated %d times only", truncations)
	}
}

func TestCopyTruncateLosesNothingBetweenBatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, bodyConfig(path))
	mustSend(t, s, "1", "2")
	write(t, path+".1", read(t, path))
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, "3")
	wantFile(t, path+".1", "1\n2\n")
	wantFile(t, path, "3\n")
}

// Somebody else wrote into the file, and did not end the line.
func TestSomebodyElseWritesIntoTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, bodyConfig(path))
	mustSend(t, s, "1")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, "by hand"); err != nil {
		t.Fatal(err)
	}
	mustSend(t, s, "2")
	wantFile(t, path, "1\nby hand\n2\n")
	if err := f.Truncate(4); err != nil { // in the middle of a line
		t.Fatal(err)
	}
	mustSend(t, s, "3")
	wantFile(t, path, "1\nby\n3\n")
}

// writeWhile delivers numbered events, two batches at a time, while disturb is
// called again and again; it returns the numbers that were delivered.
func writeWhile(t *testing.T, s *fileSink, disturb func()) map[int]bool {
	t.Helper()
	var mu sync.Mutex
	delivered := map[int]bool{}
	end := make(chan struct{})
	var group sync.WaitGroup
	for worker := range maxCalls {
		group.Go(func() {
			for n := worker; ; n += 3 * maxCalls {
				select {
				case <-end:
					return
				default:
				}
				batch := []int{n, n + maxCalls, n + 2*maxCalls}
				if send(t, s, strconv.Itoa(batch[0]), strconv.Itoa(batch[1]), strconv.Itoa(batch[2])) != nil {
					continue // its numbers are not in delivered; that it may be refused is tested elsewhere
				}
				mu.Lock()
				for _, n := range batch {
					delivered[n] = true
				}
				mu.Unlock()
			}
		})
	}
	enough := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(delivered) > 600
	}
	for began := time.Now(); !enough() && time.Since(began) < 20*time.Second; {
		disturb()
		time.Sleep(3 * time.Millisecond)
	}
	close(end)
	group.Wait()
	return delivered
}

func number(t *testing.T, line string) int {
	t.Helper()
	n, err := strconv.Atoi(line)
	if err != nil {
		t.Errorf("a line is not whole: %q", line)
	}
	return n
}

// numbers adds the numbers in the file to found.
func numbers(t *testing.T, path string, found map[int]bool) {
	t.Helper()
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return // just disturbed
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range lines(t, f) {
		found[number(t, line)] = true
	}
}

func missing(t *testing.T, delivered, found map[int]bool) {
	t.Helper()
	var lost []string
	for n := range delivered {
		if !found[n] {
			lost = append(lost, strconv.Itoa(n))
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d delivered events are in no file: %s", len(lost), len(delivered), strings.Join(lost[:min(len(lost), 10)], " "))
	}
}

func globbed(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}
