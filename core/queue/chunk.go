package queue

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// Pebble writes its logs and manifests as records of chunks, in blocks. A reader of
// its own stops without an error at the first chunk that is not good, because that
// is how the end of a log that was cut off looks. This one tells where that is, and
// finds what is good behind it.

const (
	chunkBlock    = 32 << 10
	minChunkHead  = 7  // checksum 4, length 2, type 1
	maxChunkHead  = 19 // and log number 4, synced offset 8
	chunkLogTypes = 5  // types from here on carry the number of the log
	maxChunkType  = 12
)

// chunkKind is the place of a chunk in its record.
type chunkKind uint8

const (
	chunkFull chunkKind = iota
	chunkFirst
	chunkMiddle
	chunkLast
)

type chunk struct {
	kind    chunkKind
	offset  int64 // of its head
	payload []byte
}

// chunkReader reads the chunks of a file.
type chunkReader struct {
	file io.ReaderAt
	// log is the lower half of the number of the log: chunks of others are left
	// over from the file's former life. 0: a manifest.
	log uint32

	offset int64 // of the next chunk
	block  [chunkBlock]byte
	number int64 // of block
	n      int   // bytes that are in block
	err    error // of reading
	// ended: the log was closed here.
	ended bool
}

func newChunkReader(file io.ReaderAt, log uint32) *chunkReader {
	return &chunkReader{file: file, log: log, number: -1}
}

// next returns the chunk at the offset, and goes on to the one after it. It is false
// where there is none: at the end, at one that is not good, or where the file cannot
// be read, see err. The payload is good until the next call.
func (r *chunkReader) next() (c chunk, ok bool) {
	for !r.ended && r.load() {
		at := int(r.offset % chunkBlock)
		if r.padding(at) {
			r.offset += int64(r.n - at)
			if r.n < chunkBlock {
				return c, false
			}
			continue
		}
		c, size, ok := r.parse(at)
		if !ok {
			return c, false
		}
		r.offset += int64(size)
		if r.ended {
			return chunk{}, false
		}
		return c, true
	}
	return c, false
}

// resync goes on to the next good chunk behind a place where there is none, and
// tells whether there is one.
func (r *chunkReader) resync() bool {
	for r.offset++; !r.ended && r.load(); r.offset++ {
		at := int(r.offset % chunkBlock)
		if _, _, ok := r.parse(at); ok && !r.ended {
			return true
		}
		r.ended = false // such a mark has no checksum
	}
	return false
}

// load reads the block of the offset. It is false behind the end of the file.
func (r *chunkReader) load() bool {
	number := r.offset / chunkBlock
	if number != r.number {
		n, err := r.file.ReadAt(r.block[:], number*chunkBlock)
		if err != nil && !errors.Is(err, io.EOF) {
			r.err = err
			return false
		}
		r.number, r.n = number, n
	}
	return int(r.offset%chunkBlock) < r.n
}

// padding tells whether the rest of the block is too small for a chunk, and empty.
func (r *chunkReader) padding(at int) bool {
	if r.n-at >= maxChunkHead {
		return false
	}
	if r.n-at < minChunkHead {
		return true
	}
	for _, b := range r.block[at:r.n] {
		if b != 0 {
			return false
		}
	}
	return true
}

// parse reads the chunk at a place of the block.
func (r *chunkReader) parse(at int) (c chunk, size int, ok bool) {
	b := r.block[at:r.n]
	if len(b) < minChunkHead {
		return c, 0, false
	}
	sum, length, typ := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint16(b[4:])), int(b[6])
	head := minChunkHead
	switch {
	case typ == 0 || typ > maxChunkType || (typ >= chunkLogTypes) != (r.log != 0):
		return c, 0, false
	case typ >= 9:
		head = maxChunkHead
	case typ >= chunkLogTypes:
		head = minChunkHead + 4
	}
	if len(b) < head+length {
		return c, 0, false
	}
	if r.log != 0 {
		log := binary.LittleEndian.Uint32(b[minChunkHead:])
		if log == r.log+1 && sum == 0 && length == 0 { // the mark of the end
			r.ended = true
			return c, head, true
		}
		if log != r.log {
			return c, 0, false
		}
	}
	if chunkSum(b[6:head+length]) != sum {
		return c, 0, false
	}
	return chunk{kind: chunkKind((typ - 1) % 4), offset: r.offset, payload: b[head : head+length]}, head + length, true
}

// chunkSum is Pebble's checksum, of chunks and of the blocks of tables.
func chunkSum(b []byte) uint32 { return maskSum(crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))) }

func maskSum(c uint32) uint32 { return (c>>15 | c<<17) + 0xa282ead8 }
