package main

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// A sink that is killed at any moment loses nothing that it reported as
// delivered: not while it writes, not while it rotates, not while it compresses.
func TestKilledAtAnyMoment(t *testing.T) {
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	delivered := map[int]bool{}
	next := 0
	for range rounds {
		cmd, out := startHelper(t, "append", path, strconv.Itoa(next))
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("helper ended: %q %v", line, err)
		}
		time.AfterFunc(time.Duration(random.IntN(60_000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
		for ; err == nil; line, err = out.ReadString('\n') {
			from, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			for i := range helperBatch {
				delivered[from+i] = true
			}
			next = max(next, from+helperBatch)
		}
		_ = cmd.Wait() // says that it was killed
		next += maxCalls * helperBatch
	}

	// One more start, to repair and put in order what the last crash left.
	cfg := bodyConfig(path)
	size := minMaxSize
	cfg.Rotate = &RotateConfig{MaxSize: &size, Compress: true}
	s := start(t, cfg)
	mustSend(t, s, `{"n":-1,"fill":"","again":-1}`)
	eventually(t, "all rotated files are compressed", func() bool {
		for _, name := range rotated(t, path) {
			if !strings.HasSuffix(name, gzSuffix) {
				return false
			}
		}
		return true
	})
	files := rotated(t, path)
	found, torn := map[int]int{}, 0
	for _, name := range append(files, path) {
		for _, line := range fileLines(t, name) {
			var ev struct {
				N, Again int
				Fill     string
			}
			if err := json.Unmarshal([]byte(line), &ev); err != nil || ev.N != ev.Again {
				torn++ // at most one for each crash, see below
				continue
			}
			found[ev.N]++
		}
	}
	missing := 0
	for n := range delivered {
		if found[n] == 0 {
			missing++
		}
	}
	t.Logf("%d delivered, %d in the files, %d rotated files, %d torn lines ended, %d kills", len(delivered), len(found)-1, len(files), torn, rounds)
	if missing > 0 {
		t.Errorf("%d events that were reported as delivered are missing", missing)
	}
	if torn > rounds {
		t.Errorf("%d torn lines after %d kills", torn, rounds)
	}
	if len(files) == 0 {
		t.Error("nothing was rotated")
	}
}

// A sink that is killed in the middle of a line leaves no torn line for the next
// one to write on.
func TestKilledInTheMiddleOfALine(t *testing.T) {
	for format, want := range map[string]string{
		// The torn event goes: it was not reported as delivered and comes again.
		formatEvent: `{"specversion":"1.0","id":"1","source":"/","type":"","data":{}}` + "\n" +
			`{"specversion":"1.0","id":"2","source":"/","type":"","data":{"second":2}}` + "\n",
		// What a line may be is not known here: the torn one is ended.
		formatBody: "{}\n" + `{"seco` + "\n" + `{"second":2}` + "\n",
	} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			cmd, _ := startHelper(t, "half", path, format)
			if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
				t.Fatalf("the helper ended with %v", err)
			}
			if torn := read(t, path); strings.HasSuffix(torn, "\n") {
				t.Fatalf("nothing is torn: %q", torn)
			}
			cfg := bodyConfig(path)
			cfg.Format = format
			s := start(t, cfg)
			if err := s.Deliver(t.Context(), sink.Event{ID: "2", Body: []byte(`{"second":2}`)}); err != nil {
				t.Fatal(err)
			}
			wantFile(t, path, want)
		})
	}
}

// fileLines returns the lines of a file, decompressed if its name says so.
func fileLines(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, gzSuffix) {
		zip, err := gzip.NewReader(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		r = zip
	}
	return lines(t, r)
}
