package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/callbackd/callbackd/plugins/sink"
)

const (
	// maxRewrites is how often one group of batches is written again because its
	// file was removed or truncated under it, before the sink gives up for now.
	maxRewrites = 3
	// rotateRetry is the pause after a rotation that failed.
	rotateRetry = 10 * time.Second
	// checkPatience is how long a check waits for the disk.
	checkPatience = 2 * time.Second
	// maxKeptBuffer is the size in bytes up to which a batch's buffer is reused.
	maxKeptBuffer = 4 << 20
)

var errClosed = errors.New("the sink is closed")

// writer appends batches of lines to one file. One goroutine (Run) owns the
// file, so that a batch can be formed while another one is on its way to the
// disk; batches that wait share one sync.
//
// What append reported as written is in the file as whole lines and, with sync,
// on the disk. A batch that failed is not in the file at all, as far as the disk
// still obeys: it is cut off again, at the latest before the next batch.
type writer struct {
	path string
	mode fs.FileMode
	// sync: bring each batch to the disk before it counts as written.
	sync bool
	// torn tells of what follows the last line break whether it is what a crash
	// left of a line, to be cut off.
	torn     func(tail []byte) bool
	rotation rotation
	open     func(path string, mode fs.FileMode) (handle, error)
	log      *slog.Logger

	work    chan *batch
	checks  chan chan error
	stopped chan struct{}
	batches sync.Pool

	written, rotations *sink.Counter

	// What follows belongs to Run.

	h  handle
	id fs.FileInfo
	// end is the file's size, as far as this process knows.
	end int64
	// whole: the file is known to end at the end of a line.
	whole bool
	// cut: a failed write may have left bytes after end.
	cut bool
	// born is when the file got its first line.
	born time.Time
	// rotateAfter is when a rotation that failed may be tried again.
	rotateAfter time.Time
	rotateFails bool
	shelf       *shelf
}

// batch is lines that are written together.
type batch struct {
	lines []byte
	ctx   context.Context // of the call that waits
	done  chan error
}

func newWriter(cfg settings, log *slog.Logger) *writer {
	w := &writer{
		path: cfg.path, mode: cfg.mode, sync: cfg.sync, torn: cfg.torn, rotation: cfg.rotation,
		open: openTarget, log: log,
		work:    make(chan *batch),
		checks:  make(chan chan error),
		stopped: make(chan struct{}),
		shelf:   newShelf(cfg.path, cfg.rotation, log),

		written:   sink.NewCounter("written_bytes_total", "Bytes written to the file."),
		rotations: sink.NewCounter("rotations_total", "Files that were rotated away."),
	}
	w.batches.New = func() any { return &batch{done: make(chan error, 1)} }
	return w
}

// newBatch returns an empty batch, to be filled and given to append.
func (w *writer) newBatch() *batch {
	b := w.batches.Get().(*batch)
	b.lines = b.lines[:0]
	return b
}

// append writes b, which the caller must not touch any more, and returns when
// it is written. It does not wait longer than ctx; whether the batch was written
// is then unknown.
func (w *writer) append(ctx context.Context, b *batch) error {
	b.ctx = ctx
	select {
	case w.work <- b:
	case <-ctx.Done():
		return fmt.Errorf("waiting for the disk: %w", ctx.Err())
	case <-w.stopped:
		return errClosed
	}
	select {
	case err := <-b.done:
		b.ctx = nil
		if cap(b.lines) <= maxKeptBuffer {
			w.batches.Put(b)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("waiting for the disk: %w", ctx.Err())
	}
}

// check tells whether the next batch could be written. A disk that hangs is an
// answer too: one that comes late would be taken for a plugin that hangs.
func (w *writer) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkPatience, fmt.Errorf("the disk of %s has not answered for %s", w.path, checkPatience))
	defer cancel()
	done := make(chan error, 1)
	select {
	case w.checks <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.stopped:
		return errClosed
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Run writes what append hands over until ctx ends, then closes the file.
func (w *writer) Run(ctx context.Context) error {
	defer close(w.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return w.closeFile()
		case b := <-w.work:
			w.serve(b)
		case done := <-w.checks:
			done <- w.probe()
		case <-timer.C:
			w.rotateIdle()
		}
		if d, ok := w.untilAged(time.Now()); ok {
			timer.Reset(d)
		} else {
			timer.Stop()
		}
	}
}

// serve writes first and every other batch that waits, and answers them.
func (w *writer) serve(first *batch) {
	group := []*batch{first}
	for waiting := true; waiting; {
		select {
		case b := <-w.work:
			group = append(group, b)
		default:
			waiting = false
		}
	}
	live := group[:0]
	for _, b := range group {
		if err := b.ctx.Err(); err != nil {
			b.done <- err // nobody waits for it any more
			continue
		}
		live = append(live, b)
	}
	if len(live) == 0 {
		return
	}
	err := w.write(live)
	for _, b := range live {
		b.done <- err
	}
}

// write brings group to the file, and to the disk.
func (w *writer) write(group []*batch) error {
	var size int64
	for _, b := range group {
		size += int64(len(b.lines))
	}
	for range maxRewrites {
		if err := w.ready(); err != nil {
			return err
		}
		if now := time.Now(); w.aged(now) || w.full(size, now) {
			w.rotate()
			if err := w.ready(); err != nil {
				return err
			}
		}
		kept, err := w.put(group, size)
		if err != nil {
			return err
		}
		if kept {
			return nil
		}
		w.log.Warn("the file was removed or truncated while it was written to; writing again", "path", w.path)
	}
	return fmt.Errorf("%s is removed or truncated again and again while it is written to", w.path)
}

// put appends group and tells whether it is still there afterwards: not if the
// file was deleted or truncated meanwhile.
func (w *writer) put(group []*batch, size int64) (kept bool, err error) {
	start := w.end
	if start == 0 {
		w.born = time.Now()
	}
	for _, b := range group {
		if _, err := w.h.Write(b.lines); err != nil {
			w.takeBack(start)
			return false, err
		}
	}
	if w.sync {
		if err := w.h.Sync(); err != nil {
			// What a failed sync leaves is unknown, and a second one would report
			// success for the same lost pages: begin anew with the file.
			w.takeBack(start)
			return false, errors.Join(err, w.closeFile())
		}
	}
	fi, err := w.h.Stat()
	if err != nil {
		w.takeBack(start)
		return false, err
	}
	if links(fi) == 0 || fi.Size() < start+size {
		return false, nil
	}
	w.end = start + size
	w.written.Add(float64(size))
	return true, nil
}

// takeBack cuts off what a failed write left after start. Where that fails too,
// ready does it before the next batch.
func (w *writer) takeBack(start int64) {
	w.end = start
	fi, err := w.h.Stat()
	if err == nil && fi.Size() > start {
		err = w.h.Truncate(start)
	}
	w.cut = err != nil
}

// ready makes sure that w.h is the file at the path, and that it ends at the
// end of a line.
func (w *writer) ready() error {
	if w.h != nil {
		if err := w.follow(); err != nil {
			return err
		}
	}
	if w.h == nil {
		if err := w.openFile(); err != nil {
			return err
		}
	}
	if w.whole {
		return nil
	}
	end, err := repair(w.h, w.end, w.torn)
	if err != nil {
		return fmt.Errorf("repair the last line of %s: %w", w.path, err)
	}
	w.end, w.whole = end, true
	return nil
}

// follow notices what happened to the file since the last batch: it was
// moved, deleted, replaced, truncated, or written to by somebody else.
func (w *writer) follow() error {
	fi, err := os.Lstat(w.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !os.SameFile(fi, w.id) {
		w.log.Info("the file was moved or deleted; opening it anew", "path", w.path)
		if w.cut {
			w.takeBack(w.end)
		}
		if err := w.closeFile(); err != nil {
			w.log.Warn("closing the file that was moved or deleted", "path", w.path, "error", err)
		}
		return nil
	}
	if w.cut && fi.Size() > w.end {
		if err := w.h.Truncate(w.end); err != nil {
			return fmt.Errorf("cut off what a failed write left: %w", err)
		}
	} else if fi.Size() != w.end {
		w.end, w.whole = fi.Size(), fi.Size() == 0
	}
	w.cut = false
	return nil
}

func (w *writer) openFile() error {
	h, err := w.open(w.path, w.mode)
	if err != nil {
		return err
	}
	fi, err := h.Stat()
	if err != nil {
		return errors.Join(err, h.Close())
	}
	w.h, w.id, w.end, w.whole, w.cut = h, fi, fi.Size(), fi.Size() == 0, false
	w.born = fi.ModTime()
	if t, ok := birth(w.path); ok && t.Before(w.born) {
		w.born = t
	}
	return nil
}

func (w *writer) closeFile() error {
	if w.h == nil {
		return nil
	}
	var err error
	if !w.sync {
		err = w.h.Sync()
	}
	err = errors.Join(err, w.h.Close())
	w.h, w.id = nil, nil
	return err
}

// probe tells whether the next batch could be written, without writing.
func (w *writer) probe() error {
	if err := w.ready(); err != nil {
		return err
	}
	return hasSpace(w.path)
}

// rotateIdle rotates the file when it became too old while nothing was written.
func (w *writer) rotateIdle() {
	if !w.aged(time.Now()) {
		return
	}
	w.rotate()
	if err := w.ready(); err != nil {
		w.log.Warn("the next file cannot be opened; trying again with the next events", "path", w.path, "error", err)
	}
}

// full tells whether size more bytes make the file too long.
func (w *writer) full(size int64, now time.Time) bool {
	return w.rotation.maxSize > 0 && w.end > 0 && w.end+size > w.rotation.maxSize && !now.Before(w.rotateAfter)
}

// aged tells whether the file is too old.
func (w *writer) aged(now time.Time) bool {
	d, ok := w.untilAged(now)
	return ok && d <= 0
}

// untilAged returns how long it is until the file is to be rotated for its age;
// false: it has no line yet, or there is no such limit.
func (w *writer) untilAged(now time.Time) (time.Duration, bool) {
	if w.rotation.maxAge <= 0 || w.h == nil || w.end == 0 {
		return 0, false
	}
	return max(w.born.Add(w.rotation.maxAge).Sub(now), w.rotateAfter.Sub(now), 0), true
}

// rotate renames the file and leaves opening the next one to ready. A failure
// keeps no delivery: the file goes on growing, and a warning is logged.
func (w *writer) rotate() {
	err := w.rename()
	switch {
	case err != nil:
		w.rotateAfter = time.Now().Add(rotateRetry)
		if !w.rotateFails {
			w.log.Warn("the file cannot be rotated; it goes on growing", "path", w.path, "error", err)
		}
	case w.rotateFails:
		w.log.Info("the file can be rotated again", "path", w.path)
	}
	w.rotateFails = err != nil
}

func (w *writer) rename() error {
	if !w.sync {
		if err := w.h.Sync(); err != nil {
			return err
		}
	}
	if fi, err := os.Lstat(w.path); err != nil || !os.SameFile(fi, w.id) {
		return err // moved meanwhile; ready will see it
	}
	name, err := w.shelf.free(time.Now())
	if err != nil {
		return err
	}
	if err := os.Rename(w.path, name); err != nil {
		return err
	}
	if err := w.closeFile(); err != nil {
		w.log.Warn("closing the rotated file", "path", name, "error", err)
	}
	w.rotations.Inc()
	w.shelf.changed()
	return syncDir(w.shelf.dir)
}

// links is the number of names that the file has.
func links(fi fs.FileInfo) uint64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}
