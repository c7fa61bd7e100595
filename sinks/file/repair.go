package main

import (
	"bytes"
	"encoding/json"
	"fmt"
)

const (
	// eventHead begins every line of format "event".
	eventHead = `{"specversion":"1.0",`
	// tailBlock is how many bytes are read at a time in search of the last line
	// break; maxTail is how far the search goes. No line of ours is longer: a body
	// has at most 64 MiB, in base64 86 MiB.
	tailBlock = 64 << 10
	maxTail   = 96 << 20
)

// repair makes the first size bytes of h, the whole file, end with a line
// break, and returns its new size. What follows the last line break is cut off
// where torn says that a crash left it, and is ended with a line break
// otherwise: nothing is removed that could be worth something to anybody.
func repair(h handle, size int64, torn func(tail []byte) bool) (int64, error) {
	tail, err := lastLine(h, size)
	if err != nil || len(tail) == 0 {
		return size, err
	}
	if len(tail) < maxTail && torn(tail) {
		size -= int64(len(tail))
		err = h.Truncate(size)
	} else {
		size++
		_, err = h.Write([]byte{'\n'})
	}
	if err != nil {
		return 0, err
	}
	return size, h.Sync()
}

// lastLine returns what follows the last line break, at most maxTail bytes.
func lastLine(h handle, size int64) ([]byte, error) {
	var tail []byte
	for n := int64(1); size > 0; {
		block := make([]byte, min(n, size))
		if _, err := h.ReadAt(block, size-int64(len(block))); err != nil {
			return nil, fmt.Errorf("read the end of the file: %w", err)
		}
		i := bytes.LastIndexByte(block, '\n')
		tail = append(block[i+1:], tail...)
		if i >= 0 || len(tail) >= maxTail {
			break
		}
		size -= int64(len(block))
		n = min(max(tailBlock, 2*n), maxTail-int64(len(tail)))
	}
	return tail, nil
}

// tornEvent tells of the end of a file of format "event" whether it is what a
// crash left of a line of the sink.
func tornEvent(tail []byte) bool {
	text := bytes.TrimRight(tail, "\x00")
	if len(text) >= len(eventHead) && !bytes.HasPrefix(text, []byte(eventHead)) ||
		len(text) < len(eventHead) && !bytes.HasPrefix([]byte(eventHead), text) {
		return false
	}
	return len(text) < len(tail) || !json.Valid(text)
}

// tornBody tells of the end of a file of format "body", where a line can be
// anything, whether nothing in it is from the sink: a file system that lost
// power may leave zero bytes.
func tornBody(tail []byte) bool {
	return len(bytes.Trim(tail, "\x00")) == 0
}
