package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callbackd/callbackd/plugins/sink"
)

// faults are what goes wrong with a file, as a test wants it. The functions are
// called instead of the file's; they get the real one.
type faults struct {
	write    func(h handle, p []byte) (int, error)
	truncate func(h handle, size int64) error
	sync     func(h handle) error
	opened   atomic.Int32
	synced   atomic.Int32
}

type faultyFile struct {
	handle
	*faults
}

func (f faultyFile) Write(p []byte) (int, error) {
	if f.write != nil {
		return f.write(f.handle, p)
	}
	return f.handle.Write(p)
}

func (f faultyFile) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate(f.handle, size)
	}
	return f.handle.Truncate(size)
}

func (f faultyFile) Sync() error {
	f.synced.Add(1)
	if f.sync != nil {
		return f.sync(f.handle)
	}
	return f.handle.Sync()
}

// openTarget opens a file that has the faults.
func (f *faults) openTarget(path string, mode fs.FileMode) (handle, error) {
	f.opened.Add(1)
	h, err := openTarget(path, mode)
	if err != nil {
		return nil, err
	}
	return faultyFile{h, f}, nil
}

// startFaulty runs a sink on a file with faults.
func startFaulty(t *testing.T, cfg Config, f *faults) *fileSink {
	t.Helper()
	set, err := cfg.settings()
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(set, quiet())
	w.open = f.openTarget
	s, err := run(set, w)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopOnce(t, s) })
	return s
}

// diskFull writes half of what it should.
func diskFull(h handle, p []byte) (int, error) {
	n, err := h.Write(p[:len(p)/2])
	return n, errors.Join(err, &fs.PathError{Op: "write", Path: "f", Err: unix.ENOSPC})
}

func TestAShortWriteLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var f faults
	s := startFaulty(t, bodyConfig(path), &f)
	mustSend(t, s, "before")
	f.write = diskFull
	for range 3 {
		err := send(t, s, "one", "two", "three")
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error %v, want one about the full disk", err)
		}
		if outcome, _ := sink.OutcomeOf(err); outcome != sink.OutcomeRetry {
			t.Errorf("outcome %s, want retry", outcome)
		}
		wantFile(t, path, "before\n")
	}
	f.write = nil
	mustSend(t, s, "one", "two", "three")
	wantFile(t, path, "before\none\ntwo\nthree\n")
}

// Where the disk does not even let cut off what a short write left, nothing is
// appended to it until it does.
func TestAShortWriteThatCannotBeCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var f faults
	s := startFaulty(t, bodyConfig(path), &f)
	mustSend(t, s, "before")
	f.write = diskFull
	f.truncate = func(handle, int64) error { return unix.EIO }
	if err := send(t, s, "one"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v, want one about the full disk", err)
	}
	wantFile(t, path, "before\non")
	f.write = nil
	if err := send(t, s, "two"); !errors.Is(err, unix.EIO) {
		t.Errorf("error %v, want the one of the cut", err)
	}
	wantFile(t, path, "before\non")
	f.truncate = nil
	mustSend(t, s, "two")
	wantFile(t, path, "before\ntwo\n")
}

// After a failed sync the operating system may have dropped what it was to
// write, and report success for the next sync: the batch is written again, into
// a file opened anew.
func TestAFailedSync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var f faults
	s := startFaulty(t, bodyConfig(path), &f)
	mustSend(t, s, "before")
	f.sync = func(handle) error { return unix.EIO }
	if err := send(t, s, "one"); !errors.Is(err, unix.EIO) {
		t.Errorf("error %v, want %v", err, unix.EIO)
	}
	wantFile(t, path, "before\n")
	f.sync = nil
	opened := f.opened.Load()
	mustSend(t, s, "one")
	if f.opened.Load() == opened {
		t.Error("the file was not opened anew")
	}
	wantFile(t, path, "before\none\n")
}

func TestAFileThatVanishesDuringABatchIsWrittenAgain(t *testing.T) {
	for name, vanish := range map[string]func(path string) error{
		"deleted":   os.Remove,
		"truncated": func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			var f faults
			s := startFaulty(t, bodyConfig(path), &f)
			mustSend(t, s, "before")
			once := sync.OnceValue(func() error { return vanish(path) })
			f.sync = func(h handle) error { return errors.Join(h.Sync(), once()) }
			mustSend(t, s, "one", "two")
			wantFile(t, path, "one\ntwo\n")

			f.sync = func(h handle) error { return errors.Join(h.Sync(), vanish(path)) }
			if err := send(t, s, "three"); err == nil || !strings.Contains(err.Error(), "again and again") {
				t.Errorf("error %v, want one that says that the file goes away again and again", err)
			}
		})
	}
}

func TestSyncNoneSyncsOnlyAtTheEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	cfg := bodyConfig(path)
	cfg.Sync = syncNone
	var f faults
	s := startFaulty(t, cfg, &f)
	for range 5 {
		mustSend(t, s, "x")
	}
	if n := f.synced.Load(); n != 0 {
		t.Errorf("%d syncs, want none", n)
	}
	stop(t, s)
	if n := f.synced.Load(); n != 1 {
		t.Errorf("%d syncs after the end, want 1", n)
	}
}

// Batches that wait while one is on its way to the disk share one sync.
func TestBatchesThatWaitShareASync(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	const more = 5
	synctest.Test(t, func(t *testing.T) {
		var f faults
		s := startFaulty(t, bodyConfig(path), &f)
		release := make(chan struct{})
		f.sync = func(h handle) error {
			if f.synced.Load() == 1 {
				<-release
			}
			return h.Sync()
		}
		var group sync.WaitGroup
		group.Go(func() { mustSend(t, s, "x") })
		synctest.Wait() // it is in the sync
		for range more {
			group.Go(func() { mustSend(t, s, "x") })
		}
		synctest.Wait() // they wait
		close(release)
		group.Wait()
		if n := f.synced.Load(); n != 2 {
			t.Errorf("%d syncs for %d batches, want 2", n, 1+more)
		}
	})
	if got := strings.Count(read(t, path), "\n"); got != 1+more {
		t.Errorf("%d lines, want %d", got, 1+more)
	}
}

func TestAHungDiskHoldsNobodyLongerThanItsTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var f faults
	s := startFaulty(t, bodyConfig(path), &f)
	release := make(chan struct{})
	begun := make(chan struct{})
	f.sync = func(h handle) error {
		if f.synced.Load() == 1 {
			close(begun)
			<-release
		}
		return h.Sync()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for i := range 2 {
		group.Go(func() {
			if err := s.Deliver(ctx, sink.Event{Body: []byte{byte('0' + i)}}); !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v", err, context.Canceled)
			}
		})
	}
	<-begun
	cancel()
	group.Wait()
	if err := s.Check(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("check: error %v, want %v", err, context.Canceled)
	}
	if err := s.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("close: error %v, want %v", err, context.Canceled)
	}
	close(release)
	<-s.writer.stopped
}

func TestACheckOfAHungDiskIsAnswered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	synctest.Test(t, func(t *testing.T) {
		var f faults
		s := startFaulty(t, bodyConfig(path), &f)
		release := make(chan struct{})
		f.sync = func(h handle) error {
			<-release
			return h.Sync()
		}
		var group sync.WaitGroup
		group.Go(func() { mustSend(t, s, "x") })
		synctest.Wait()
		if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "has not answered for 2s") {
			t.Errorf("error %v, want one that says that the disk does not answer", err)
		}
		close(release)
		group.Wait()
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestABatchWhoseTimeIsUpIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	set, err := bodyConfig(path).settings()
	if err != nil {
		t.Fatal(err)
	}
	w := newWriter(set, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := w.newBatch()
	b.ctx, b.lines = ctx, []byte("late\n")
	w.serve(b)
	if err := <-b.done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want %v", err, context.Canceled)
	}
	if exists(path) {
		t.Error("it was written")
	}
}

func TestRotationByAgeWithoutEvents(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.jsonl")
	synctest.Test(t, func(t *testing.T) {
		cfg := bodyConfig(path)
		age := time.Hour
		cfg.Rotate = &RotateConfig{MaxAge: &age}
		s := start(t, cfg)
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if n := len(rotated(t, path)); n != 0 {
			t.Errorf("an empty file was rotated: %d", n)
		}
		mustSend(t, s, "1")
		time.Sleep(59 * time.Minute)
		mustSend(t, s, "2")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		files := rotated(t, path)
		if len(files) != 1 {
			t.Fatalf("%d rotated files, want 1", len(files))
		}
		wantFile(t, files[0], "1\n2\n")
		wantFile(t, path, "")
		mustSend(t, s, "3")
		wantFile(t, path, "3\n")
		stop(t, s)
	})
}
