package queue

import (
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faultFS keeps errors of the write-ahead log and of the directory from Pebble,
// which answers them with a panic that unlocks what is not locked while it
// unwinds: no recover holds that (tried with v2.1.7). Such an error turns the
// queue to failed, and the goroutine of Pebble that met it goes no further.
// Errors of tables are Pebble's to handle: it tries again.
type faultFS struct {
	vfs.FS
	health *health
	// armed is set while the store is open: opening and closing report errors in
	// order.
	armed *atomic.Bool
}

// check returns where err is nil or nothing is armed.
func (f faultFS) check(what, name string, err error) error {
	if err == nil || !f.armed.Load() {
		return err
	}
	f.health.fail(fmt.Errorf("%s %s: %w", what, name, err))
	select {}
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// Create implements vfs.FS.
func (f faultFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, category)
	return f.log("create", name, file, err)
}

// ReuseForWrite implements vfs.FS.
func (f faultFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, category)
	return f.log("reuse", newname, file, err)
}

func (f faultFS) log(what, name string, file vfs.File, err error) (vfs.File, error) {
	if !isLog(name) {
		return file, err
	}
	if err := f.check(what, name, err); err != nil {
		return nil, err
	}
	return faultFile{File: file, fs: f, name: name}, nil
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

// faultFile is a log or a directory.
type faultFile struct {
	vfs.File
	fs   faultFS
	name string
}

// Write implements vfs.File.
func (f faultFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
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
