package wire

import (
	"sync"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields steps through the fields of a protobuf message. What it shows belongs to
// the message.
type Fields struct {
	// Num and Typ are those of the present field.
	Num protowire.Number
	Typ protowire.Type
	// Bytes are those of a field of that kind; of another one, what was there before.
	Bytes []byte
	// Varint is the number of a field of that kind, likewise.
	Varint uint64
	// Whole is the field with its tag.
	Whole []byte

	rest    []byte
	damaged bool
}

// FieldsOf returns the fields of a message, the first one after Next.
func FieldsOf(msg []byte) Fields { return Fields{rest: msg} }

// Damaged tells whether Next ended before the end of the message.
func (f *Fields) Damaged() bool { return f.damaged }

// Next goes to the next field. It is false at the end of the message, and where
// the message is damaged.
func (f *Fields) Next() bool {
	msg := f.rest
	if len(msg) == 0 {
		return false
	}
	// Nearly all tags, and most lengths, are a byte.
	tagLen := 1
	if tag := msg[0]; tag < 0x80 && tag >= 8 {
		f.Num, f.Typ = protowire.Number(tag>>3), protowire.Type(tag&7)
	} else if f.Num, f.Typ, tagLen = protowire.ConsumeTag(msg); tagLen < 0 || f.Num > protowire.MaxValidNumber {
		return f.damage()
	}
	var n int
	value := msg[tagLen:]
	switch f.Typ {
	case protowire.BytesType:
		if len(value) > 0 && value[0] < 0x80 && int(value[0]) < len(value) {
			n = 1 + int(value[0])
			f.Bytes = value[1:n:n]
			break
		}
		f.Bytes, n = protowire.ConsumeBytes(value)
	case protowire.VarintType:
		f.Varint, n = protowire.ConsumeVarint(value)
	default:
		n = protowire.ConsumeFieldValue(f.Num, f.Typ, value)
	}
	if n < 0 {
		return f.damage()
	}
	f.Whole, f.rest = msg[:tagLen+n], value[n:]
	return true
}

func (f *Fields) damage() bool {
	f.damaged = true
	return false
}

// Buffers is a pool of buffers for messages. gRPC's own clears each buffer whole
// before it gives it out, up to a megabyte for a batch.
type Buffers struct{ pool sync.Pool }

var _ mem.BufferPool = (*Buffers)(nil)

// maxKeptBuffer is the largest buffer that is kept.
const maxKeptBuffer = 4 << 20

// Get implements mem.BufferPool. What is in the buffer is undefined.
func (b *Buffers) Get(length int) *[]byte {
	if buf, ok := b.pool.Get().(*[]byte); ok && cap(*buf) >= length {
		*buf = (*buf)[:length]
		return buf
	}
	buf := make([]byte, length)
	return &buf
}

// Put implements mem.BufferPool.
func (b *Buffers) Put(buf *[]byte) {
	if cap(*buf) <= maxKeptBuffer {
		b.pool.Put(buf)
	}
}
