package ingest

import (
	"bytes"
	"cmp"
	"errors"
	"io"
)

// incoming is the body of the request in work.
type incoming struct {
	c       *connection
	left    int64 // of the body or, where it comes in chunks, of the chunk
	chunked bool
	inside  bool  // a chunk, whose end is not read yet
	expects bool  // the sender waits to be told to go on
	extra   int   // bytes of chunk extensions and trailers so far
	err     error // of all that is read from now on; io.EOF at the end
}

const (
	// maxDiscard is how much of a body that nobody wants is read to keep the
	// connection.
	maxDiscard = 256 << 10
	// maxChunkLine bounds the line before a chunk, and a line of the trailers.
	maxChunkLine = 1 << 10
	// maxExtra bounds all that is said between and behind the chunks of a body.
	maxExtra = 4 << 10
	// maxChunkDigits is more than any chunk needs, and less than overflows.
	maxChunkDigits = 15
)

var (
	errChunk = errors.New("malformed chunked body")
	errExtra = errors.New("too much between the chunks")
)

func (b *incoming) Read(p []byte) (int, error) {
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.expects {
		b.expects = false
		b.c.send([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	if b.left == 0 {
		if b.err = b.next(); b.err != nil {
			return 0, b.err
		}
	}
	n, err := b.c.read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil {
		b.err = unexpected(err)
	}
	return n, b.err
}

// next goes to the next chunk, or to the end of the body.
func (b *incoming) next() error {
	if !b.chunked {
		return io.EOF
	}
	if b.inside {
		if line, err := b.c.line(); err != nil || len(line) > 0 {
			return cmp.Or(err, errChunk)
		}
	}
	line, err := b.c.line()
	if err != nil {
		return err
	}
	digits := 0
	for digits < len(line) && digits < maxChunkDigits {
		v := hexDigit(line[digits])
		if v < 0 {
			break
		}
		b.left = b.left<<4 | v
		digits++
	}
	if digits == 0 || !b.extension(line[digits:]) {
		return errChunk
	}
	if b.extra += len(line) - digits; b.extra > maxExtra {
		return errExtra
	}
	if b.inside = b.left > 0; b.inside {
		return nil
	}
	return b.trailers()
}

// extension tells whether what follows a chunk's size is nothing, or something that
// may be ignored.
func (b *incoming) extension(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	if text = bytes.TrimLeft(text, " \t"); len(text) == 0 || text[0] != ';' {
		return false
	}
	for _, c := range text {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// trailers reads what may follow the last chunk. Nothing of it is used.
func (b *incoming) trailers() error {
	for {
		line, err := b.c.line()
		if err != nil {
			return err
		}
		if len(line) == 0 {
			return io.EOF
		}
		if _, _, wrong := parseField(string(line)); wrong != nil {
			return errChunk
		}
		if b.extra += len(line); b.extra > maxExtra {
			return errExtra
		}
	}
}

// finish reads what nobody has read, and tells whether the next request begins
// behind it.
func (b *incoming) finish() bool {
	switch {
	case b.err != nil:
		return errors.Is(b.err, io.EOF)
	case !b.chunked && b.left <= int64(len(b.c.in)):
		b.c.in = b.c.in[b.left:]
		b.left = 0
		return true
	case b.expects, b.left > maxDiscard:
		return false
	}
	_, err := io.CopyN(io.Discard, b, maxDiscard+1)
	return errors.Is(err, io.EOF)
}

func hexDigit(c byte) int64 {
	switch {
	case '0' <= c && c <= '9':
		return int64(c - '0')
	case 'a' <= c && c <= 'f':
		return int64(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int64(c-'A') + 10
	}
	return -1
}

// unexpected turns an end into one that came too soon.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read reads what has come in, else from the connection.
func (c *connection) read(p []byte) (int, error) {
	if len(c.in) == 0 {
		if len(p) >= readBytes/2 {
			return c.conn.Read(p)
		}
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.in)
	c.in = c.in[n:]
	return n, nil
}

// line reads a line, and returns it without its end. It is good until the next
// reading.
func (c *connection) line() ([]byte, error) {
	for {
		if n := bytes.IndexByte(c.in, '\n'); n > 0 && c.in[n-1] == '\r' && n <= maxChunkLine {
			line := c.in[:n-1]
			c.in = c.in[n+1:]
			return line, nil
		} else if n >= 0 || len(c.in) > maxChunkLine {
			return nil, errChunk
		}
		if err := c.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}
