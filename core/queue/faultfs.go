package queue

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faultFS keeps errors of the write-ahead log and of the directory from Pebble,
// which answers them with a panic that unlocks what is not locked while it
// unwinds: no recover holds that (tried with v2.1.7). Such an error turns the
// queue to failed, and the goroutine of Pebble that met it goes no further. A
// write that finds no room waits until there is some; see shortage. Errors of
// tables are Pebble's to handle: it removes what it began and tries again.
//
// That needs the manifest (v2.1.7: clearCompactingState). So a compaction must not take
// the last of the disk: another one would wait for room for the manifest, the first for
// the manifest to remove what it began, and both for ever. See leaves.
type faultFS struct {
	vfs.FS
	health   *health
	shortage *shortage
	reserve  int64 // in bytes
	// armed is set while the store is open: opening and closing report errors in
	// order.
	armed *atomic.Bool
}

// check returns where err is nil or nothing is armed.
func (f faultFS) check(what, name string, err error) error {
	if err == nil || !f.armed.Load() {
		return err
	}
	f.health.fail(failedTo(what, name, err))
	select {}
}

// failedTo tells what was done to which file, which the errors of the system do by
// themselves.
func failedTo(what, name string, err error) error {
	var told *fs.PathError
	if errors.As(err, &told) {
		return err
	}
	return fmt.Errorf("%s %s: %w", what, name, err)
}

// waiting does something again and again while there is no room for it.
func (f faultFS) waiting(name string, do func() error) error {
	err := do()
	if !isNoRoom(err) || !f.armed.Load() {
		return err
	}
	f.shortage.enter(name)
	defer f.shortage.leave()
	for isNoRoom(err) && f.armed.Load() && f.health.error() == nil {
		time.Sleep(roomEvery)
		err = do()
	}
	return err
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// isManifest tells of the file that lists the others, and of the one that tells
// which is it.
func isManifest(name string) bool {
	base := path.Base(name)
	return strings.HasPrefix(base, "MANIFEST-") || strings.HasPrefix(base, "marker.")
}

// Create implements vfs.FS.
func (f faultFS) Create(name string, category vfs.DiskWriteCategory) (file vfs.File, err error) {
	return f.created("create", name, category, func() (vfs.File, error) { return f.FS.Create(name, category) })
}

// ReuseForWrite implements vfs.FS.
func (f faultFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return f.created("reuse", newname, category, func() (vfs.File, error) { return f.FS.ReuseForWrite(oldname, newname, category) })
}

func (f faultFS) created(what, name string, category vfs.DiskWriteCategory, do func() (vfs.File, error)) (file vfs.File, err error) {
	switch {
	case isLog(name):
		err = f.waiting(name, func() (err error) { file, err = do(); return err })
		if err := f.check(what, name, err); err != nil {
			return nil, err
		}
		return faultFile{File: file, fs: f, name: name}, nil
	case isManifest(name):
		if err = f.waiting(name, func() (err error) { file, err = do(); return err }); err != nil {
			return nil, err
		}
		return patientFile{File: file, fs: f, name: name}, nil
	}
	if file, err = do(); err != nil {
		f.met(name, err)
		return nil, err
	}
	return &tableFile{File: file, fs: f, name: name, leaves: leaves(category, f.reserve), unasked: askEvery}, nil
}

const (
	flushCategory, compactionCategory vfs.DiskWriteCategory = "pebble-memtable-flush", "pebble-compaction" // Pebble's

	// A compaction leaves as much of the disk as a memtable takes, and the tables of a
	// memtable leave some room for the manifest, an entry of which takes some KiB: so
	// many parts of the reserve, 32 MiB and 4 MiB by default.
	compactionParts = reserveParts
	flushParts      = 64
	// askEvery is how many bytes are written to a table before the disk is asked again.
	askEvery = 64 << 10
)

// leaves is how many bytes of the disk are left to others by who writes tables.
func leaves(by vfs.DiskWriteCategory, reserve int64) uint64 {
	switch by {
	case compactionCategory:
		return uint64(reserve / compactionParts)
	case flushCategory:
		return uint64(reserve / flushParts)
	}
	return 0
}

// met notes that Pebble is told of a full disk. It takes some time: Pebble tries
// again at once.
func (f faultFS) met(name string, err error) {
	if isNoRoom(err) && f.armed.Load() {
		f.shortage.met(name)
		time.Sleep(roomEvery)
	}
}

// Open implements vfs.FS.
func (f faultFS) Open(name string, options ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.Open(name, options...)
	if err != nil || !strings.HasSuffix(name, ".sst") {
		return file, err
	}
	return readFile{File: file, fs: f, name: name}, nil
}

// OpenDir implements vfs.FS.
func (f faultFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return faultFile{File: file, fs: f, name: name}, nil
}

// Unwrap implements vfs.FS.
func (f faultFS) Unwrap() vfs.FS { return f.FS }

// write writes all of p, however often there is no room for the rest of it.
func (f faultFS) write(file vfs.File, name string, p []byte) (n int, err error) {
	err = f.waiting(name, func() error {
		m, err := file.Write(p[n:])
		n += m
		return err
	})
	return n, err
}

// faultFile is a log or a directory.
type faultFile struct {
	vfs.File
	fs   faultFS
	name string
}

// Write implements vfs.File.
func (f faultFile) Write(p []byte) (int, error) {
	n, err := f.fs.write(f.File, f.name, p)
	return n, f.fs.check("write", f.name, err)
}

// Sync implements vfs.File.
func (f faultFile) Sync() error { return f.fs.check("sync", f.name, f.File.Sync()) }

// SyncData implements vfs.File.
func (f faultFile) SyncData() error { return f.fs.check("sync", f.name, f.File.SyncData()) }

// SyncTo implements vfs.File.
func (f faultFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	return full, f.fs.check("sync", f.name, err)
}

// Close implements vfs.File.
func (f faultFile) Close() error { return f.fs.check("close", f.name, f.File.Close()) }

// patientFile is a manifest: it waits for room. Pebble reports what else happens
// to it.
type patientFile struct {
	vfs.File
	fs   faultFS
	name string
}

// Write implements vfs.File.
func (f patientFile) Write(p []byte) (int, error) { return f.fs.write(f.File, f.name, p) }

// tableFile is a table, or something else that Pebble writes anew when it fails.
type tableFile struct {
	vfs.File
	fs      faultFS
	name    string
	leaves  uint64 // bytes of the disk
	unasked int    // bytes since the disk was asked
}

// Write implements vfs.File.
func (f *tableFile) Write(p []byte) (n int, err error) {
	if err = f.ask(len(p)); err == nil {
		n, err = f.File.Write(p)
	}
	f.fs.met(f.name, err)
	return n, err
}

// ask looks whether there is more room than what is left to others.
func (f *tableFile) ask(more int) error {
	if f.unasked += more; f.leaves == 0 || f.unasked < askEvery || !f.fs.armed.Load() {
		return nil
	}
	f.unasked = 0
	usage, err := f.fs.GetDiskUsage(path.Dir(f.name))
	if err != nil || usage.AvailBytes >= f.leaves {
		return nil //nolint:nilerr // where the room is unknown, writing tells
	}
	return &fs.PathError{Op: "write", Path: f.name, Err: syscall.ENOSPC}
}

// readFile is a table that is read.
type readFile struct {
	vfs.File
	fs   faultFS
	name string
}

// ReadAt implements vfs.File.
func (f readFile) ReadAt(p []byte, offset int64) (int, error) {
	n, err := f.File.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		f.fs.health.fail(failedTo("read", f.name, err))
		holdCompaction()
	}
	return n, err
}

// holdCompaction does not return where a compaction calls it: Pebble answers errors
// of what it reads for one with a panic, which nobody could recover (v2.1.7: where
// it meets a single delete). The queue has failed by then. Others get the error.
func holdCompaction() {
	callers := make([]uintptr, 256)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for more := true; more; {
		var frame runtime.Frame
		frame, more = frames.Next()
		if strings.HasSuffix(frame.Function, "/pebble/v2.(*DB).runCompaction") {
			select {}
		}
	}
}
