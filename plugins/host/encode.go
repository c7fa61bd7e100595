package host

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that batchCodec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// batchCodec is gRPC's codec for protobuf, but for what a Deliver call sends and
// receives: a batch becomes a DeliverRequest and results come out of a
// DeliverResponse without messages in between, which were most of the garbage
// and of the time.
type batchCodec struct {
	encoding.CodecV2
	buffers *wire.Buffers
	// sink is the field DeliverRequest.sink.
	sink []byte
}

func newBatchCodec(ref *sinkpb.SinkRef) *batchCodec {
	head := appendText(nil, 1, text(ref.GetName()))
	head = protowire.AppendVarint(protowire.AppendTag(head, 2, protowire.VarintType), ref.GetGeneration())
	return &batchCodec{encoding.GetCodecV2("proto"), new(wire.Buffers), append(appendHead(nil, 1, len(head)), head...)}
}

// Marshal takes a request that was encoded already.
func (c *batchCodec) Marshal(v any) (mem.BufferSlice, error) {
	if request, ok := v.(*encoded); ok {
		return mem.BufferSlice{mem.NewBuffer(request.bytes, c.buffers)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c *batchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	results, ok := v.(*results)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	results.buffer = data.MaterializeToBuffer(c.buffers)
	return results.read(results.buffer.ReadOnlyData())
}

// encoded is a DeliverRequest in a buffer of the codec's, which is the codec's
// again once it is marshalled.
type encoded struct{ bytes *[]byte }

// perDelivery is more than the tags and lengths of a delivery take up.
const perDelivery = 128

// encode makes the request for a batch. Deliveries that cannot be sent are told
// to refuse and left out; sent is how many are not.
func (c *batchCodec) encode(batch *Batch, refuse func(index int, why error)) (request *encoded, sent int, err error) {
	size := perDelivery
	for i := range batch.Deliveries {
		size += perDelivery + textSize(&batch.Deliveries[i])
	}
	if size > wire.MaxMessageBytes {
		return nil, 0, tooLarge(batch, size)
	}
	buf := c.buffers.Get(size)
	b := append((*buf)[:0], c.sink...)
	seconds, nanos := int64(batch.Timeout/time.Second), int64(batch.Timeout%time.Second)
	b = appendSpan(appendHead(b, 3, sizeSpan(seconds, nanos)), seconds, nanos)
	for i := range batch.Deliveries {
		d := repaired(&batch.Deliveries[i])
		maps, err := appendMaps(nil, d)
		if err != nil {
			refuse(i, err)
			continue
		}
		b = appendDelivery(b, d, maps)
		sent++
	}
	*buf = b
	if len(b) > wire.MaxMessageBytes {
		return nil, 0, tooLarge(batch, len(b))
	}
	return &encoded{buf}, sent, nil
}

// discard gives back what is not sent.
func (c *batchCodec) discard(request *encoded) { c.buffers.Put(request.bytes) }

func tooLarge(batch *Batch, size int) error {
	return fmt.Errorf("%w: %d deliveries have %d bytes, at most %d can be sent at once",
		ErrTooLarge, len(batch.Deliveries), size, wire.MaxMessageBytes)
}

func textSize(d *Delivery) int {
	e := &d.Event
	return len(d.ID) + len(d.Pipeline) + len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.ContentType) + len(e.Body)
}

// appendDelivery appends the field DeliverRequest.deliveries; maps are the fields
// headers and per_event.
func appendDelivery(b []byte, d *Delivery, maps []byte) []byte {
	eventSize := sizeEvent(&d.Event)
	size := sizeText(d.ID) + 1 + sizeBytes(eventSize) + sizeText(d.Pipeline) + len(maps)
	attempt := uint64(min(max(d.Attempt, 0), math.MaxInt32))
	if attempt != 0 {
		size += 1 + protowire.SizeVarint(attempt)
	}
	b = appendHead(b, 2, size)
	b = appendText(b, 1, d.ID)
	b = appendHead(b, 2, eventSize)
	b = appendEvent(b, &d.Event)
	if attempt != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), attempt)
	}
	b = appendText(b, 4, d.Pipeline)
	return append(b, maps...)
}

func sizeEvent(e *Event) int {
	size := sizeText(e.ID) + sizeText(e.Source) + sizeText(e.Type) + sizeText(e.Subject) + sizeText(e.ContentType)
	for _, t := range [...]time.Time{e.Time, e.Accepted} {
		if !t.IsZero() {
			size += 1 + sizeBytes(sizeTime(t))
		}
	}
	if len(e.Body) > 0 {
		size += 1 + sizeBytes(len(e.Body))
	}
	return size
}

func appendEvent(b []byte, e *Event) []byte {
	b = appendText(b, 1, e.ID)
	b = appendText(b, 2, e.Source)
	b = appendText(b, 3, e.Type)
	b = appendText(b, 4, e.Subject)
	b = appendTime(b, 5, e.Time)
	b = appendTime(b, 6, e.Accepted)
	b = appendText(b, 7, e.ContentType)
	if len(e.Body) > 0 {
		b = append(appendHead(b, 8, len(e.Body)), e.Body...)
	}
	return b
}

// appendHead appends the tag and the length of a field with a number below 16.
func appendHead(b []byte, num byte, size int) []byte {
	b = append(b, num<<3|byte(protowire.BytesType))
	if size < 0x80 {
		return append(b, byte(size)) // most of them, without a call
	}
	return protowire.AppendVarint(b, uint64(size)) //nolint:gosec // a length
}

// sizeBytes is what n bytes take up with their length.
func sizeBytes(n int) int {
	if n < 0x80 {
		return 1 + n
	}
	return protowire.SizeBytes(n)
}

func appendMessage(b []byte, num byte, m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(appendHead(b, num, proto.Size(m)), m)
}

// repaired is d as the protocol needs it: one string that is not UTF-8 would keep
// the whole batch from being read.
func repaired(d *Delivery) *Delivery {
	e := &d.Event
	ok := utf8.ValidString(d.ID) && utf8.ValidString(d.Pipeline) && utf8.ValidString(e.ID) && utf8.ValidString(e.Source) &&
		utf8.ValidString(e.Type) && utf8.ValidString(e.Subject) && utf8.ValidString(e.ContentType)
	for name, value := range d.Headers {
		ok = ok && utf8.ValidString(name) && utf8.ValidString(value)
	}
	if ok {
		return d
	}
	out := *d
	for _, s := range []*string{
		&out.ID, &out.Pipeline, &out.Event.ID, &out.Event.Source, &out.Event.Type, &out.Event.Subject, &out.Event.ContentType,
	} {
		*s = text(*s)
	}
	out.Headers = make(map[string]string, len(d.Headers))
	for name, value := range d.Headers {
		out.Headers[text(name)] = text(value)
	}
	return &out
}

func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func sizeText(s string) int {
	if s == "" {
		return 0
	}
	return 1 + sizeBytes(len(s))
}

func appendText(b []byte, num byte, s string) []byte {
	if s == "" {
		return b
	}
	return append(appendHead(b, num, len(s)), s...)
}

func sizeTime(t time.Time) int { return sizeSpan(t.Unix(), int64(t.Nanosecond())) }

func appendTime(b []byte, num byte, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	seconds, nanos := t.Unix(), int64(t.Nanosecond())
	return appendSpan(appendHead(b, num, sizeSpan(seconds, nanos)), seconds, nanos)
}

// sizeSpan is the size of a Timestamp or a Duration.
func sizeSpan(seconds, nanos int64) (size int) {
	if seconds != 0 {
		size = 1 + protowire.SizeVarint(uint64(seconds)) //nolint:gosec // as protobuf does
	}
	if nanos != 0 {
		size += 1 + protowire.SizeVarint(uint64(nanos)) //nolint:gosec // as protobuf does
	}
	return size
}

func appendSpan(b []byte, seconds, nanos int64) []byte {
	if seconds != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), uint64(seconds)) //nolint:gosec // as protobuf does
	}
	if nanos != 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(nanos)) //nolint:gosec // as protobuf does
	}
	return b
}

// appendMaps appends the fields Delivery.headers and Delivery.per_event.
func appendMaps(b []byte, d *Delivery) ([]byte, error) {
	for name, value := range d.Headers {
		b = appendHead(b, 5, sizeText(name)+sizeText(value))
		b = appendText(appendText(b, 1, name), 2, value)
	}
	for key, value := range d.PerEvent {
		converted, err := perEventToProto(key, value)
		if err == nil {
			b = appendHead(b, 6, sizeText(key)+1+sizeBytes(proto.Size(converted)))
			b, err = appendMessage(appendText(b, 1, key), 2, converted)
		}
		if err != nil {
			return nil, fmt.Errorf("per-event attribute %q: %w", key, err)
		}
	}
	return b, nil
}

func perEventToProto(key string, value schema.Value) (*sinkpb.Value, error) {
	if !utf8.ValidString(key) {
		return nil, errors.New("the key is not UTF-8")
	}
	return wire.ValueToProto(value)
}

// results is a DeliverResponse. What it holds is valid until the next one is
// read.
type results struct {
	buffer mem.Buffer
	list   []rawResult
}

// rawResult is a Result of the protocol.
type rawResult struct {
	id, message []byte
	outcome     sinkpb.Outcome
	retryAfter  time.Duration
}

// free lets go of the message that was read last.
func (r *results) free() {
	if r.buffer != nil {
		r.buffer.Free()
		r.buffer = nil
	}
}

// read reads the results of a message as proto.Unmarshal does, but takes text
// that is not UTF-8.
func (r *results) read(msg []byte) error {
	r.list = r.list[:0]
	fields := wire.FieldsOf(msg)
	for fields.Next() {
		if fields.Num != 1 || fields.Typ != protowire.BytesType {
			continue
		}
		var result rawResult
		if !result.read(fields.Bytes) {
			return errNoResults
		}
		r.list = append(r.list, result)
	}
	if fields.Damaged() {
		return errNoResults
	}
	return nil
}

var errNoResults = errors.New("the plugin's answer is not a DeliverResponse")

func (r *rawResult) read(msg []byte) bool {
	fields := wire.FieldsOf(msg)
	for fields.Next() {
		switch {
		case fields.Num == 1 && fields.Typ == protowire.BytesType:
			r.id = fields.Bytes
		case fields.Num == 2 && fields.Typ == protowire.VarintType:
			r.outcome = sinkpb.Outcome(fields.Varint) //nolint:gosec // as protobuf does
		case fields.Num == 3 && fields.Typ == protowire.BytesType:
			r.message = fields.Bytes
		case fields.Num == 4 && fields.Typ == protowire.BytesType:
			var after durationpb.Duration
			if proto.Unmarshal(fields.Bytes, &after) != nil {
				return false
			}
			r.retryAfter = after.AsDuration()
		}
	}
	return !fields.Damaged()
}
