package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"
	"github.com/cockroachdb/pebble/v2/sstable/colblk"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// A table is a row of blocks, each with a checksum behind it: data first, then what
// helps to find them. Where that help is damaged, the data are found by their
// checksums.

const (
	blockTrailer = block.TrailerLen // type 1, checksum 4
	// maxTableBlock bounds a block: one event is in one block.
	maxTableBlock = maxEventLen + 1<<20
	// keySchemaColumns is what Pebble makes its columns of, for keys without
	// versions.
	keySchemaColumns = 16
	// dataBlockHead is the length of what every block of data begins with: the
	// longest key 4, version 1, columns 2, rows 4.
	dataBlockHead = 11
	dataBlockVers = 1
	// maxKeyLen is more than any key of a queue has.
	maxKeyLen = 1 << 12
)

// table reads a table block by block.
func (r *storeReader) table(name string) error {
	file, err := os.Open(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	t := &tableReader{of: r, name: name, file: file, size: info.Size()}
	handles, err := dataBlocks(filepath.Join(r.dir, name))
	if err != nil {
		r.unreadable(name, 0, 0, fmt.Sprintf("its index: %v: its blocks are looked for", err))
		return t.search()
	}
	for _, h := range handles {
		if err := t.blockAt(int64(h.Offset), int64(h.Length)); err != nil {
			return err
		}
	}
	return nil
}

// dataBlocks asks the index of a table where its data are.
func dataBlocks(path string) (handles []block.HandleWithProperties, err error) {
	defer func() {
		if r := recover(); r != nil { // Pebble's answer to some damage
			err = fmt.Errorf("%v", r)
		}
	}()
	file, err := vfs.Default.Open(path)
	if err != nil {
		return nil, err
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	schema := colblk.DefaultKeySchema(pebble.DefaultComparer, keySchemaColumns)
	reader, err := sstable.NewReader(context.Background(), readable, sstable.ReaderOptions{
		Comparer: pebble.DefaultComparer, KeySchemas: sstable.MakeKeySchemas(&schema),
	})
	if err != nil {
		return nil, errors.Join(err, readable.Close())
	}
	defer func() { err = errors.Join(err, reader.Close()) }()
	layout, err := reader.Layout()
	if err != nil {
		return nil, err
	}
	return layout.Data, nil
}

// tableReader reads the blocks of one table.
type tableReader struct {
	of   *storeReader
	name string
	file io.ReaderAt
	size int64
}

// blockAt reads the block of data that the index says is there.
func (t *tableReader) blockAt(offset, length int64) error {
	if length > maxTableBlock || offset+length+blockTrailer > t.size {
		t.of.unreadable(t.name, offset, length, "the file ends before")
		return nil
	}
	b := make([]byte, length+blockTrailer)
	if _, err := t.file.ReadAt(b, offset); err != nil {
		t.of.unreadable(t.name, offset, length, err.Error())
		return nil
	}
	if chunkSum(b[:length+1]) != binary.LittleEndian.Uint32(b[length+1:]) {
		t.of.unreadable(t.name, offset, length, "the checksum is wrong")
		return nil
	}
	ok, err := t.emit(b[:length:length], b[length])
	if err == nil && !ok {
		t.of.unreadable(t.name, offset, length, "it holds nothing that this version knows")
	}
	return err
}

// emit hands on what is in a block of data, and tells whether it was one.
func (t *tableReader) emit(b []byte, compression byte) (ok bool, err error) {
	if compression != 0 || !looksLikeData(b) {
		return false, nil
	}
	entries, ok := decodeBlock(b)
	if !ok {
		return false, nil
	}
	for _, e := range entries {
		if err := t.of.take(e.key, e.seq, e.kind, e.value); err != nil {
			return true, err
		}
	}
	return true, nil
}

type blockEntry struct {
	key, value []byte
	seq        uint64
	kind       pebble.InternalKeyKind
}

// decodeBlock reads the entries of a block. They refer to b.
func decodeBlock(b []byte) (entries []blockEntry, ok bool) {
	defer func() {
		if recover() != nil { // it was no block of data
			entries, ok = nil, false
		}
	}()
	schema := colblk.DefaultKeySchema(pebble.DefaultComparer, keySchemaColumns)
	var decoder colblk.DataBlockDecoder
	decoder.Init(&schema, b)
	var it colblk.DataBlockIter
	it.InitOnce(&schema, pebble.DefaultComparer, nil)
	if err := it.Init(&decoder, block.NoTransforms); err != nil {
		return nil, false
	}
	for kv := it.First(); kv != nil; kv = it.Next() {
		entries = append(entries, blockEntry{
			key: append([]byte(nil), kv.K.UserKey...), value: kv.InPlaceValue(), seq: uint64(kv.SeqNum()), kind: kv.Kind(),
		})
	}
	return entries, len(entries) > 0
}

// looksLikeData tells whether b may begin a block of data.
func looksLikeData(b []byte) bool {
	if len(b) < dataBlockHead {
		return false
	}
	longest, columns, rows := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[5:]), binary.LittleEndian.Uint32(b[7:])
	return longest > 0 && longest <= maxKeyLen && b[4] == dataBlockVers && columns >= 4 && columns <= 16 && rows > 0 && rows < 1<<24
}

// search finds blocks of data by their checksums, one behind the other, and goes on
// behind what is damaged.
func (t *tableReader) search() error {
	for offset := int64(0); offset < t.size; {
		b, err := t.blockFrom(offset)
		if err != nil {
			t.of.unreadable(t.name, offset, 0, err.Error())
			return nil
		}
		if b != nil {
			length := len(b) - blockTrailer
			if _, err := t.emit(b[:length:length], b[length]); err != nil {
				return err
			}
			offset += int64(len(b))
			continue
		}
		next, err := t.nextData(offset + 1)
		if err != nil {
			t.of.unreadable(t.name, offset, 0, err.Error())
			return nil
		}
		if next < t.size { // else it is the end of the table, which is no block
			t.of.unreadable(t.name, offset, next-offset, "the checksum is wrong")
		}
		offset = next
	}
	return nil
}

// nextData finds the next place where a whole block of data begins, or the end.
func (t *tableReader) nextData(from int64) (int64, error) {
	const window = 1 << 20
	for ; from < t.size; from += window - dataBlockHead {
		b := make([]byte, min(window, t.size-from))
		if _, err := t.file.ReadAt(b, from); err != nil {
			return 0, err
		}
		for i := range b {
			if !looksLikeData(b[i:]) {
				continue
			}
			found, err := t.blockFrom(from + int64(i))
			if err != nil {
				return 0, err
			}
			if found == nil {
				continue
			}
			if _, ok := decodeBlock(found[:len(found)-blockTrailer]); ok {
				return from + int64(i), nil
			}
		}
	}
	return t.size, nil
}

// blockFrom reads the block that begins at a place: it ends where the checksum of
// what is before follows. nil: there is none.
func (t *tableReader) blockFrom(offset int64) ([]byte, error) {
	table := crc32.MakeTable(crc32.Castagnoli)
	var sum uint32
	done := 0
	for size := int64(256 << 10); ; size *= 4 {
		b := make([]byte, min(size, t.size-offset, maxTableBlock+blockTrailer))
		if _, err := t.file.ReadAt(b, offset); err != nil {
			return nil, err
		}
		for ; done+blockTrailer <= len(b); done++ {
			if b[done] == 0 { // not compressed
				if maskSum(crc32.Update(sum, table, b[done:done+1])) == binary.LittleEndian.Uint32(b[done+1:]) && done > 0 {
					return b[:done+blockTrailer], nil
				}
			}
			sum = crc32.Update(sum, table, b[done:done+1])
		}
		if int64(len(b)) < size {
			return nil, nil
		}
	}
}
