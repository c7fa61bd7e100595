package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dirMode is the mode of the folders that the sink creates, before the umask.
const dirMode fs.FileMode = 0o750

// handle is what the writer needs of an open file; tests put faults into it.
type handle interface {
	io.ReaderAt
	// Write appends p.
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
	// Sync returns when what was written is on the disk.
	Sync() error
	Close() error
}

// diskFile is the handle of a real file.
type diskFile struct{ *os.File }

func (f diskFile) Sync() error { return syncData(f.File) }

// openTarget opens the file at path for appending, locks it, and makes sure
// that its name survives a crash. A file that does not exist is created with
// mode, whatever the umask, and so are the folders that lead to it (dirMode).
//
// Whatever is not a regular file is refused: a symbolic link may lead anywhere,
// a pipe blocks, a device takes bytes for commands. So is a file that somebody
// may execute: callbacks must never become a program.
func openTarget(path string, mode fs.FileMode) (handle, error) {
	// Somebody else may create, remove or rename the file between two steps; then
	// the steps begin anew.
	for range 5 {
		f, err := openOnce(path, mode)
		if err != nil {
			if errors.Is(err, errChanged) {
				continue
			}
			return nil, err
		}
		if err := syncDir(filepath.Dir(path)); err != nil {
			_ = f.Close()
			return nil, err
		}
		return diskFile{f}, nil
	}
	return nil, fmt.Errorf("open %s: the file is replaced again and again; something else rotates it without pause", path)
}

// errRefused: nothing is written to what is at the path, whatever happens to it.
var errRefused = errors.New("refused")

// refusal is an error that is errRefused, without its text.
type refusal string

func (r refusal) Error() string      { return string(r) }
func (refusal) Is(target error) bool { return target == errRefused }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// errChanged: the file at the path became another one while it was opened.
var errChanged = errors.New("the file changed while it was opened")

func openOnce(path string, mode fs.FileMode) (f *os.File, err error) {
	f, err = openOrCreate(path, mode)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			f = nil
		}
	}()
	fi, err := f.Stat()
	if err != nil {
		return f, err
	}
	if err := acceptable(path, fi); err != nil {
		return f, err
	}
	if err := lock(f); err != nil {
		return f, err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(fi, now) {
		return f, errChanged
	}
	return f, err
}

// openOrCreate opens the file at path, or creates it.
func openOrCreate(path string, mode fs.FileMode) (*os.File, error) {
	// O_NONBLOCK: a pipe that takes the file's place after the check must not
	// block the open.
	const flags = os.O_RDWR | os.O_APPEND | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fi, err := os.Lstat(path)
	if err == nil {
		if err := acceptable(path, fi); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(path, flags, 0)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			return nil, errChanged
		}
		return f, err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// Created with the owner's bits only: the file is never open to more people
	// than mode says, not even for a moment.
	f, err := os.OpenFile(path, flags|os.O_CREATE|os.O_EXCL, mode&0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, errChanged
	}
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(mode); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// acceptable says why events are not written to fi, if so.
func acceptable(path string, fi fs.FileInfo) error {
	var what string
	switch mode := fi.Mode(); {
	case mode.IsRegular() && mode&0o111 != 0:
		return refuse("%s may be executed (mode %#o), and events are not written into programs: remove its execute bits or choose another path", path, mode.Perm())
	case mode.IsRegular():
		return nil
	case mode&fs.ModeSymlink != 0:
		return refuse("%s is a symbolic link, and those are not followed: set path to the file itself", path)
	case mode.IsDir():
		return refuse("%s is a folder: path must name a file in it", path)
	case mode&fs.ModeNamedPipe != 0:
		what = "a named pipe"
	case mode&fs.ModeSocket != 0:
		what = "a socket"
	case mode&fs.ModeDevice != 0:
		what = "a device"
	default:
		what = "no regular file"
	}
	return refuse("%s is %s: path must name a regular file, because only there an event can be brought to the disk", path, what)
}

// lock takes the file for this process, so that no two write into it.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%s is locked by another process: another file sink, or a second daemon, writes to it; give each its own path", f.Name())
	default:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
}

// makeDir creates dir, and the folders that lead to it, where they are missing.
func makeDir(dir string) error {
	fi, err := os.Stat(dir)
	if err == nil {
		if !fi.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if parent == dir {
		return err
	}
	if err := makeDir(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

// syncDir brings the names in dir to the disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		err = nil // this file system keeps names without being asked
	}
	return errors.Join(err, d.Close())
}
