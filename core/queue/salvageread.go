package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/batchrepr"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// entry is what one write left of a key.
type entry struct {
	key []byte
	// seq orders the entries of a key. Not unique: 0 for what is in the lowest
	// level of the store for long.
	seq     uint64
	deleted bool
	value   []byte
}

// storeReader reads the files of a store one by one, without Pebble's help: what is
// damaged in one of them is no reason not to read the others. Entries come in no
// order.
type storeReader struct {
	dir   string
	emit  func(entry) error
	found Inspection
}

func (r *storeReader) unreadable(file string, offset, length int64, cause string) {
	r.found.Unreadable = append(r.found.Unreadable, Unreadable{File: file, Offset: offset, Length: length, Cause: cause})
}

func (r *storeReader) read(ctx context.Context) error {
	r.found.Unreadable = []Unreadable{} // for JSON
	names, err := sortedNames(r.dir)
	if err != nil {
		return err
	}
	live, err := r.manifest(names)
	if err != nil {
		return err
	}
	synced := r.synced()
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch number, kind := parseStoreFile(name); {
		case kind == ".sst" && live.table(number):
			r.found.Tables++
			err = r.table(name)
		case kind == ".log" && live.log(number):
			r.found.Logs++
			err = r.log(name, uint32(number), synced[name])
			delete(synced, name)
		default:
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(r.dir, name), err)
		}
	}
	for name, length := range synced {
		if number, kind := parseStoreFile(name); kind == ".log" && length > 0 && live.log(number) {
			r.unreadable(name, 0, length, "the file is missing")
		}
	}
	for number := range live.tables {
		if name := fmt.Sprintf("%06d.sst", number); live.tables[number] && live.complete && !contains(names, name) {
			r.unreadable(name, 0, 0, "the file is missing")
		}
	}
	return nil
}

func contains(sorted []string, name string) bool {
	for _, n := range sorted {
		if n == name {
			return true
		}
	}
	return false
}

// parseStoreFile is the number and the extension of a table or a log.
func parseStoreFile(name string) (number uint64, kind string) {
	kind = filepath.Ext(name)
	number, err := strconv.ParseUint(strings.TrimSuffix(name, kind), 10, 64)
	if err != nil {
		return 0, ""
	}
	return number, kind
}

// synced is up to where each log and manifest was synced, as far as that is known.
func (r *storeReader) synced() map[string]int64 {
	lengths := make(map[string]int64)
	files, _, err := readSynced(vfs.Default, r.dir)
	if err != nil {
		return lengths // older versions kept none
	}
	for _, f := range files {
		lengths[f.name()] = f.length
	}
	return lengths
}

// liveFiles tells which files of the directory are a part of the store: others are
// left over, and would bring back what was settled.
type liveFiles struct {
	// tables: true is a part of it, false was removed.
	tables map[uint64]bool
	// minLog is the first log that is a part of it.
	minLog uint64
	// complete: all that the manifest said is known.
	complete bool
}

func (l *liveFiles) table(number uint64) bool {
	live, known := l.tables[number]
	return live || (!known && !l.complete)
}

func (l *liveFiles) log(number uint64) bool { return number >= l.minLog }

// manifest reads the newest manifest that the directory names.
func (r *storeReader) manifest(names []string) (liveFiles, error) {
	live := liveFiles{tables: make(map[uint64]bool)}
	name, marked := "", ""
	for _, n := range names { // sorted
		if strings.HasPrefix(n, "MANIFEST-") {
			name = n
		}
		if rest, ok := strings.CutPrefix(n, "marker.manifest."); ok {
			_, marked, _ = strings.Cut(rest, ".")
		}
	}
	switch {
	case name == "":
		r.unreadable("MANIFEST", 0, 0, "the file is missing: all tables and logs are read, and what was settled lately may come back")
		return live, nil
	case marked == "":
		r.unreadable("marker.manifest", 0, 0, "the file is missing")
	case contains(names, marked):
		name = marked
	default:
		r.unreadable(marked, 0, 0, "the file is missing")
	}
	file, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return live, err
	}
	defer func() { _ = file.Close() }()
	live.complete = name == marked
	synced := r.synced()[name]
	err = r.records(name, newChunkReader(file, 0), synced, func(record []byte) error {
		if err := live.apply(record); err != nil {
			live.complete = false
			r.unreadable(name, 0, 0, err.Error())
		}
		return nil
	})
	for _, u := range r.found.Unreadable {
		live.complete = live.complete && u.File != name
	}
	return live, err
}

// Tags of what a manifest says.
const (
	editComparer  = 1
	editLogNumber = 2
	editNextFile  = 3
	editLastSeq   = 4
	editDeleted   = 6
	editPrevLog   = 9
	editNewFile2  = 100
	editNewFile4  = 103

	editFieldsEnd     = 1
	editFieldsUnknown = 1 << 6 // from here on, a field may mean anything
)

var errEdit = errors.New("the manifest says something that this version does not know")

// apply takes over what one edit of the manifest says. A table that moves to another
// level is removed and added.
func (l *liveFiles) apply(edit []byte) error {
	d := editDecoder{b: edit}
	var removed, added []uint64
	for len(d.b) > 0 && d.err == nil {
		switch tag := d.number(); tag {
		case editComparer:
			d.bytes()
		case editLogNumber:
			l.minLog = max(l.minLog, d.number())
		case editNextFile, editLastSeq, editPrevLog:
			d.number()
		case editDeleted:
			d.number() // level
			removed = append(removed, d.number())
		case editNewFile2, editNewFile4:
			d.number() // level
			added = append(added, d.number())
			d.number() // size
			d.bytes()  // first key
			d.bytes()  // last key
			d.number() // first sequence number
			d.number() // last sequence number
			if tag == editNewFile4 {
				d.fields()
			}
		default:
			return errEdit
		}
	}
	if d.err != nil {
		return d.err
	}
	for _, n := range removed {
		l.tables[n] = false
	}
	for _, n := range added {
		l.tables[n] = true
	}
	return nil
}

type editDecoder struct {
	b   []byte
	err error
}

func (d *editDecoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.b, d.err = nil, errTruncated
		return 0
	}
	d.b = d.b[size:]
	return n
}

func (d *editDecoder) bytes() {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.b, d.err = nil, errTruncated
		return
	}
	d.b = d.b[n:]
}

func (d *editDecoder) fields() {
	for d.err == nil {
		switch tag := d.number(); {
		case d.err != nil || tag == editFieldsEnd:
			return
		case tag >= editFieldsUnknown:
			d.err = errEdit
		default:
			d.bytes()
		}
	}
}

// log reads what was committed into a log.
func (r *storeReader) log(name string, number uint32, synced int64) error {
	file, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	return r.records(name, newChunkReader(file, number), synced, func(record []byte) error {
		header, ok := batchrepr.ReadHeader(record)
		if !ok {
			return nil
		}
		batch, seq := batchrepr.Read(record), uint64(header.SeqNum)
		for range header.Count {
			kind, key, value, ok, err := batch.Next()
			if err != nil || !ok {
				return nil //nolint:nilerr // it has a checksum: this was never more
			}
			if kind == pebble.InternalKeyKindLogData {
				continue
			}
			if err := r.take(key, seq, kind, value); err != nil {
				return err
			}
			seq++
		}
		return nil
	})
}

// take hands on an entry of one of the kinds that the queue writes.
func (r *storeReader) take(key []byte, seq uint64, kind pebble.InternalKeyKind, value []byte) error {
	switch kind {
	case pebble.InternalKeyKindSet, pebble.InternalKeyKindSetWithDelete:
		return r.emit(entry{key: key, seq: seq, value: value})
	case pebble.InternalKeyKindDelete, pebble.InternalKeyKindSingleDelete, pebble.InternalKeyKindDeleteSized:
		return r.emit(entry{key: key, seq: seq, deleted: true})
	}
	return nil
}

// records calls f with all records of a file of chunks, also with those behind a
// place that is damaged. What is after synced, and no record, was never complete.
func (r *storeReader) records(name string, c *chunkReader, synced int64, f func([]byte) error) error {
	var record bytes.Buffer
	open := false // the first chunk of a record was read
	for {
		chunk, ok := c.next()
		if !ok {
			more, err := r.gap(name, c, synced)
			if err != nil || !more {
				return err
			}
			open = false
			continue
		}
		if chunk.kind == chunkFull || chunk.kind == chunkFirst {
			record.Reset()
			open = true
		}
		if !open {
			continue // the rest of one whose beginning is damaged
		}
		record.Write(chunk.payload)
		if chunk.kind == chunkFull || chunk.kind == chunkLast {
			open = false
			if err := f(record.Bytes()); err != nil {
				return err
			}
		}
	}
}

// gap looks for what is behind a place where there is no chunk, and reports that
// place where there should be one.
func (r *storeReader) gap(name string, c *chunkReader, synced int64) (more bool, err error) {
	if c.err != nil {
		r.unreadable(name, c.offset, 0, c.err.Error())
		if errors.Is(c.err, os.ErrPermission) {
			return false, c.err
		}
		c.err = nil
		c.offset = (c.offset/chunkBlock + 1) * chunkBlock
		if c.offset >= synced {
			return false, nil
		}
		return true, nil
	}
	if c.ended {
		return false, nil
	}
	from := c.offset
	switch more = c.resync(); {
	case more && (from < synced || synced == 0):
		r.unreadable(name, from, c.offset-from, "the checksum is wrong")
	case !more && from < synced:
		r.unreadable(name, from, synced-from, "nothing follows, although it was synced")
	}
	return more, nil
}
