package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

// rotating is a config that rotates at the smallest size.
func rotating(path string, keep int, compress bool) Config {
	cfg := bodyConfig(path)
	size := minMaxSize
	cfg.Rotate = &RotateConfig{MaxSize: &size, Keep: keep, Compress: compress}
	return cfg
}

// bigBody returns event n, large enough for three of them to fill a file.
func bigBody(n int) string { return fmt.Sprintf("%d %s", n, strings.Repeat("x", 1300)) }

func TestRotationBySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, rotating(path, 0, false))
	const total = 40
	for n := range total {
		mustSend(t, s, bigBody(n))
	}
	files := rotated(t, path)
	if len(files) != (total-1)/3 {
		t.Errorf("%d rotated files, want %d", len(files), (total-1)/3)
	}
	if !slices.IsSorted(files) {
		t.Errorf("the names do not sort by time: %v", files)
	}
	n := 0
	for _, name := range append(files, path) {
		fi, err := os.Stat(name)
		if err != nil || fi.Size() > int64(minMaxSize) || fi.Mode().Perm() != 0o640 {
			t.Errorf("%s: %v bytes, mode %v, %v", name, fi.Size(), fi.Mode(), err)
		}
		for _, line := range fileLines(t, name) {
			if line != bigBody(n) {
				t.Fatalf("line %d is %.20q", n, line)
			}
			n++
		}
	}
	if n != total {
		t.Errorf("%d lines, want %d", n, total)
	}
}

// A batch is not split over two files, and one larger than max_size is written.
func TestABatchLargerThanMaxSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	s := start(t, rotating(path, 0, false))
	mustSend(t, s, "first")
	mustSend(t, s, bigBody(1), bigBody(2), bigBody(3), bigBody(4))
	mustSend(t, s, "last")
	files := rotated(t, path)
	if len(files) != 2 {
		t.Fatalf("%d rotated files, want 2", len(files))
	}
	wantFile(t, files[0], "first\n")
	if got := len(fileLines(t, files[1])); got != 4 {
		t.Errorf("%d lines, want 4", got)
	}
	wantFile(t, path, "last\n")
}

func TestRotatedFilesAreCompressedAndCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	bystander := filepath.Join(filepath.Dir(path), "audit-2-20260102T150405.000000Z.jsonl")
	write(t, bystander, "not ours\n")
	s := start(t, rotating(path, 3, true))
	const total = 31
	for n := range total {
		mustSend(t, s, bigBody(n))
	}
	eventually(t, "3 compressed files", func() bool {
		files := rotated(t, path)
		return len(files) == 3 && !slices.ContainsFunc(files, func(name string) bool { return !strings.HasSuffix(name, ".jsonl.gz") })
	})
	n := total - 1 - 9 // the current file has the last line, 3 rotated ones 3 each
	for _, name := range append(rotated(t, path), path) {
		fi, err := os.Stat(name)
		if err != nil || fi.Mode().Perm() != 0o640 {
			t.Errorf("%s: mode %v, %v", name, fi.Mode(), err)
		}
		for _, line := range fileLines(t, name) {
			if line != bigBody(n) {
				t.Fatalf("line %d is %.20q", n, line)
			}
			n++
		}
	}
	if n != total {
		t.Errorf("the last line is %d, want %d", n, total)
	}
	wantFile(t, bystander, "not ours\n")
}

// Deliveries and rotations do not wait for the work on rotated files: here
// nobody does it at all.
func TestDeliveriesDoNotWaitForCompression(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	set, err := rotating(path, 1, true).settings()
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(set, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	s := &fileSink{format: formatBody, writer: w}
	for n := range 20 {
		mustSend(t, s, bigBody(n))
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := len(rotated(t, path)); got != 6 {
		t.Errorf("%d rotated files, want 6", got)
	}
}

// What a crash leaves of the work on rotated files is put right at the start,
// whichever step it hit.
func TestInterruptedCompression(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	shelf := newShelf(path, rotation{compress: true}, quiet())
	name := func(day int) string {
		return filepath.Join(shelf.dir, shelf.stem+time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC).Format(stampLayout)+shelf.ext)
	}
	for day := 1; day <= 4; day++ {
		write(t, name(day), fmt.Sprintf("day %d\n", day))
	}
	write(t, name(2)+tmpSuffix, "\x1f\x8b half of it") // while writing
	write(t, name(3)+gzSuffix, "")                     // after the rename; its content is made anew
	if err := compressFile(t.Context(), shelf.dir, filepath.Base(name(4))); err != nil {
		t.Fatal(err)
	}
	write(t, name(4), "day 4\n") // before the plain file was removed
	write(t, name(5)+tmpSuffix, "of nothing")

	if err := shelf.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	for day := 1; day <= 4; day++ {
		if got := fileLines(t, name(day)+gzSuffix); !slices.Equal(got, []string{fmt.Sprintf("day %d", day)}) {
			t.Errorf("day %d has %q", day, got)
		}
	}
	entries, err := os.ReadDir(shelf.dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%d files are left, %v; want 4", len(entries), err)
	}
}

func TestCompressionThatIsCutShortLeavesThePlainFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	shelf := newShelf(path, rotation{compress: true}, quiet())
	plain, err := shelf.free(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	write(t, plain, strings.Repeat("x\n", 1<<20))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := compressFile(ctx, shelf.dir, filepath.Base(plain)); err == nil {
		t.Error("no error")
	}
	entries, err := os.ReadDir(shelf.dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(plain) {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// A symbolic link with the name of a rotated file is left alone.
func TestALinkAmongRotatedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	other := filepath.Join(t.TempDir(), "other")
	write(t, other, "untouched\n")
	shelf := newShelf(path, rotation{keep: 1, compress: true}, quiet())
	for range 3 {
		name, err := shelf.free(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(other, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := shelf.tidy(t.Context()); err != nil {
		t.Error(err)
	}
	wantFile(t, other, "untouched\n")
}

func TestNamesOfRotatedFiles(t *testing.T) {
	at := time.Date(2026, 3, 4, 5, 6, 7, 890_123_000, time.FixedZone("", 3600))
	for path, want := range map[string]string{
		"/d/audit.jsonl":  "/d/audit-20260304T040607.890123Z.jsonl",
		"/d/audit.tar.gz": "/d/audit.tar-20260304T040607.890123Z.gz",
		"/d/audit":        "/d/audit-20260304T040607.890123Z",
		"/d/.audit":       "/d/.audit-20260304T040607.890123Z",
	} {
		s := newShelf(path, rotation{}, quiet())
		s.last = time.Unix(0, 0)
		got, err := s.free(at)
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
		}
		for _, suffix := range []string{"", gzSuffix, tmpSuffix} {
			if f, ok := s.parse(filepath.Base(got) + suffix); !ok || f.suffix != suffix {
				t.Errorf("%s%s is not recognised: %v %v", got, suffix, f, ok)
			}
		}
		for _, name := range []string{filepath.Base(path), filepath.Base(got) + ".bak", "x" + filepath.Base(got), s.stem + "20261304T040607.890123Z" + s.ext, s.stem} {
			if _, ok := s.parse(name); ok {
				t.Errorf("%s: %s is taken for a rotated file", path, name)
			}
		}
	}
}

// Names stay unique and in order when many files are rotated at once, when the
// clock goes back, and over a restart.
func TestNamesStayInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	var names []string
	for i := range 30 {
		s := newShelf(path, rotation{}, quiet()) // as after a restart
		name, err := s.free(now.Add(-time.Duration(i) * time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			name += gzSuffix
		}
		write(t, name, "")
		names = append(names, name)
	}
	if !slices.IsSorted(names) {
		t.Errorf("not in order: %v", names)
	}
	if got := rotated(t, path); !slices.Equal(got, names) {
		t.Errorf("found %v, want %v", got, names)
	}
}

// A rotation that fails holds up nothing, is told once, and is tried again.
func TestARotationThatFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	synctest.Test(t, func(t *testing.T) {
		log, told := logged()
		set, err := rotating(path, 0, false).settings()
		if err != nil {
			t.Fatal(err)
		}
		w := newWriter(set, log)
		w.shelf.dir = filepath.Join(filepath.Dir(path), "missing")
		s, err := run(set, w)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 12 {
			mustSend(t, s, bigBody(n))
			time.Sleep(rotateRetry / 4)
		}
		if got := len(fileLines(t, path)); got != 12 {
			t.Errorf("%d lines, want 12", got)
		}
		if got := strings.Count(told.String(), "cannot be rotated"); got != 1 {
			t.Errorf("told %d times: %s", got, told)
		}
		if err := os.Mkdir(w.shelf.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rotateRetry)
		mustSend(t, s, "after")
		wantFile(t, path, "after\n")
		if !bytes.Contains(told.Bytes(), []byte("rotated again")) {
			t.Errorf("the end is not told: %s", told)
		}
		stop(t, s)
	})
}

// The age counts from the file's beginning, also over restarts.
func TestTheAgeCountsOverRestarts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	age := 300 * time.Millisecond
	set := settings{path: path, mode: 0o640, sync: true, torn: tornBody, format: formatBody, rotation: rotation{maxAge: age}}
	if _, ok := birth(filepath.Dir(path)); !ok {
		t.Skip("the file system of the test's folder does not keep when a file was created")
	}
	for began := time.Now(); len(rotated(t, path)) == 0; {
		if time.Since(began) > 20*time.Second {
			t.Fatal("it was never rotated")
		}
		s, err := run(set, newWriter(set, quiet()))
		if err != nil {
			t.Fatal(err)
		}
		mustSend(t, s, "x") // soon after the start: each run is much shorter than the age
		stop(t, s)
	}
}

func BenchmarkDeliver(b *testing.B) {
	for _, batch := range []int{1, 16, 256, 512} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			cfg := bodyConfig(filepath.Join(b.TempDir(), "audit.jsonl"))
			cfg.Format = formatEvent
			s, err := openSink(cfg, quiet())
			if err != nil {
				b.Fatal(err)
			}
			evs := make([]sink.Event, batch)
			for i := range evs {
				evs[i] = sink.Event{ID: "01JAAAAAAAAAAAAAAAAAAAAAAA", Source: "chat", Type: "Group.CallbackAfterGroupInfoChanged", Subject: "@TGS#2J4SZEAEL", Time: time.Now(), ContentType: "application/json", Body: fmt.Appendf(nil, `{"GroupId":"@TGS#2J4SZEAEL","n":%d,"fill":"%s"}`, i, strings.Repeat("x", 290))}
			}
			b.ReportAllocs()
			lines := 0
			began := time.Now()
			done := make(chan error, maxCalls)
			per := b.N/maxCalls + 1
			for range maxCalls {
				go func() {
					for range per {
						if errs := s.DeliverBatch(context.Background(), evs); errs != nil {
							done <- errs[0]
							return
						}
					}
					done <- nil
				}()
			}
			for range maxCalls {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				lines += per * batch
			}
			b.ReportMetric(float64(lines)/time.Since(began).Seconds(), "lines/s")
			if err := s.Close(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
