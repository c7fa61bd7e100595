package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// A log that ends with something that is no record may have been cut off by a
// crash, or be damaged: Pebble cannot tell the one from the other, and holds it to
// be cut off. So it may lose, without a word, what was answered. Therefore a small
// file keeps up to where each log and manifest was synced. It is written after the
// sync, and not synced itself: it survives kill -9, and after a power cut it tells
// too little, never too much.

// syncedName is the name of that file in the directory of the store. Pebble leaves
// alone what is not its own.
const syncedName = "SYNCED"

const (
	syncedSlots = 64
	// syncedSlot is the size of a slot: kind 1, unused 3, number 8, length 8,
	// checksum 4, unused 8. It never crosses a sector.
	syncedSlot = 32
)

// syncedKind says what kind of file a slot is about.
type syncedKind uint8

const (
	syncedLog syncedKind = iota + 1
	syncedManifest
)

// syncedFile tells how far a file was synced.
type syncedFile struct {
	kind   syncedKind
	number uint64
	length int64
}

func (f syncedFile) name() string {
	if f.kind == syncedManifest {
		return fmt.Sprintf("MANIFEST-%06d", f.number)
	}
	return fmt.Sprintf("%06d.log", f.number)
}

// parseSynced tells of a file whether it is one whose length is kept.
func parseSynced(name string) (f syncedFile, ok bool) {
	base := path.Base(name)
	digits, isLog := strings.CutSuffix(base, ".log")
	if f.kind = syncedLog; !isLog {
		f.kind = syncedManifest
		if digits, ok = strings.CutPrefix(base, "MANIFEST-"); !ok {
			return f, false
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	f.number = n
	return f, err == nil
}

func (f syncedFile) encode() []byte {
	b := make([]byte, syncedSlot)
	b[0] = byte(f.kind)
	binary.BigEndian.PutUint64(b[4:], f.number)
	binary.BigEndian.PutUint64(b[12:], uint64(f.length))
	binary.BigEndian.PutUint32(b[20:], chunkSum(b[:20]))
	return b
}

// decodeSynced is false for an empty slot, and for one that cannot be read.
func decodeSynced(b []byte) (f syncedFile, ok bool) {
	f = syncedFile{
		kind: syncedKind(b[0]), number: binary.BigEndian.Uint64(b[4:]),
		length: int64(binary.BigEndian.Uint64(b[12:]) & (1<<63 - 1)),
	}
	ok = (f.kind == syncedLog || f.kind == syncedManifest) && binary.BigEndian.Uint32(b[20:]) == chunkSum(b[:20])
	return f, ok
}

// syncedLengths is the open file.
type syncedLengths struct {
	file vfs.File

	mu    sync.Mutex
	slots map[syncedFile]int // by kind and number
	free  []int
}

// openSynced opens the file in dir, or creates it. files are those that it tells of.
func openSynced(fsys vfs.FS, dir string) (s *syncedLengths, files []syncedFile, err error) {
	files, taken, err := readSynced(fsys, dir)
	name := fsys.PathJoin(dir, syncedName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := createSynced(fsys, dir, name); err != nil {
			return nil, nil, err
		}
	case err != nil:
		return nil, nil, err
	}
	s = &syncedLengths{slots: make(map[syncedFile]int)}
	if s.file, err = fsys.OpenReadWrite(name, vfs.WriteCategoryUnspecified); err != nil {
		return nil, nil, err
	}
	for i, f := range files {
		s.slots[syncedFile{kind: f.kind, number: f.number}] = taken[i]
	}
	for slot := range syncedSlots {
		if !slices.Contains(taken, slot) {
			s.free = append(s.free, slot)
		}
	}
	return s, files, nil
}

// readSynced reads what the file in dir tells, and in which slots.
func readSynced(fsys vfs.FS, dir string) (files []syncedFile, slots []int, err error) {
	f, err := fsys.Open(fsys.PathJoin(dir, syncedName))
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b := make([]byte, syncedSlots*syncedSlot)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	for slot := range syncedSlots {
		if f, ok := decodeSynced(b[slot*syncedSlot:][:syncedSlot]); ok {
			files, slots = append(files, f), append(slots, slot)
		}
	}
	return files, slots, nil
}

// createSynced takes the room for all of it: to write to it later needs none.
func createSynced(fsys vfs.FS, dir, name string) error {
	f, err := fsys.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, syncedSlots*syncedSlot))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, fsys.Remove(name))
	}
	return syncDir(fsys, dir)
}

// checkSynced reads all that was synced, and returns an error that tells of the
// first place where it is not there any more.
func checkSynced(fsys vfs.FS, dir string, files []syncedFile) error {
	for _, f := range files {
		if err := checkSyncedFile(fsys, dir, f); err != nil {
			return err
		}
	}
	return nil
}

func checkSyncedFile(fsys vfs.FS, dir string, f syncedFile) (err error) {
	file, err := fsys.Open(fsys.PathJoin(dir, f.name()))
	if errors.Is(err, fs.ErrNotExist) {
		if f.kind == syncedManifest || f.length == 0 {
			return nil // its name may not have been synced; Pebble knows which it needs
		}
		return damaged(fmt.Errorf("%s is missing, of which %d bytes were synced", f.name(), f.length))
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	r := newChunkReader(file, f.chunkLog())
	for ok := true; ok && r.offset < f.length; {
		_, ok = r.next()
	}
	if r.err != nil {
		return r.err
	}
	if r.offset < f.length && !r.ended {
		return damaged(fmt.Errorf("%s is damaged at byte %d, of %d that were synced", f.name(), r.offset, f.length))
	}
	return nil
}

// chunkLog is the number that the chunks of the file carry.
func (f syncedFile) chunkLog() uint32 {
	if f.kind == syncedManifest {
		return 0
	}
	return uint32(f.number)
}

// take finds a slot for a file. It is false where there is none: then nobody looks
// after that file.
func (s *syncedLengths) take(f syncedFile) (slot int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := syncedFile{kind: f.kind, number: f.number}
	if slot, ok = s.slots[key]; ok {
		return slot, true
	}
	if len(s.free) == 0 {
		return 0, false
	}
	slot = s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	s.slots[key] = slot
	return slot, true
}

// drop forgets a file before it is removed: synced, because one that is missing
// is reported.
func (s *syncedLengths) drop(f syncedFile) error {
	key := syncedFile{kind: f.kind, number: f.number}
	s.mu.Lock()
	slot, ok := s.slots[key]
	delete(s.slots, key)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	_, err := s.file.WriteAt(make([]byte, syncedSlot), int64(slot)*syncedSlot)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", syncedName, err)
	}
	s.mu.Lock()
	s.free = append(s.free, slot)
	s.mu.Unlock()
	return nil
}

// close syncs what it tells: after an orderly end all of it is known.
func (s *syncedLengths) close() error { return errors.Join(s.file.Sync(), s.file.Close()) }

// syncedFS keeps the lengths of what Pebble syncs.
type syncedFS struct {
	vfs.FS
	lengths *syncedLengths
}

// Create implements vfs.FS.
func (s syncedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := s.FS.Create(name, category)
	return s.follow(name, file, err)
}

// ReuseForWrite implements vfs.FS.
func (s syncedFS) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if f, ok := parseSynced(oldname); ok {
		if err := s.lengths.drop(f); err != nil {
			return nil, err
		}
	}
	file, err := s.FS.ReuseForWrite(oldname, newname, category)
	return s.follow(newname, file, err)
}

func (s syncedFS) follow(name string, file vfs.File, err error) (vfs.File, error) {
	f, ok := parseSynced(name)
	if err != nil || !ok {
		return file, err
	}
	slot, ok := s.lengths.take(f)
	if !ok {
		return file, nil
	}
	return &followedFile{File: file, what: f, slot: slot, lengths: s.lengths, written: new(atomic.Int64)}, nil
}

// Remove implements vfs.FS.
func (s syncedFS) Remove(name string) error {
	if f, ok := parseSynced(name); ok {
		if err := s.lengths.drop(f); err != nil {
			return err
		}
	}
	return s.FS.Remove(name)
}

// Unwrap implements vfs.FS.
func (s syncedFS) Unwrap() vfs.FS { return s.FS }

// followedFile keeps up to where it was synced. One goroutine writes and syncs it.
type followedFile struct {
	vfs.File
	what    syncedFile
	slot    int
	lengths *syncedLengths
	written *atomic.Int64
}

// Write implements vfs.File.
func (f *followedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.written.Add(int64(n))
	return n, err
}

// Sync implements vfs.File.
func (f *followedFile) Sync() error { return f.keep(f.File.Sync) }

// SyncData implements vfs.File.
func (f *followedFile) SyncData() error { return f.keep(f.File.SyncData) }

func (f *followedFile) keep(sync func() error) error {
	length := f.written.Load()
	if err := sync(); err != nil {
		return err
	}
	if length == f.what.length {
		return nil
	}
	f.what.length = length
	if _, err := f.lengths.file.WriteAt(f.what.encode(), int64(f.slot)*syncedSlot); err != nil {
		return fmt.Errorf("%s: %w", syncedName, err)
	}
	return nil
}
