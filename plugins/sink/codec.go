package sink

import (
	"bytes"
	"unicode/utf8"
	"unsafe"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that batchCodec wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// batchCodec is gRPC's codec for protobuf, but for DeliverRequest: that one it
// reads with one allocation for each delivery instead of a dozen. A batch is by
// far the most of what a plugin receives, and reading it was the largest part of
// the cost of the process line. Results it writes in one pass.
type batchCodec struct {
	encoding.CodecV2
	buffers *wire.Buffers
}

func newBatchCodec() batchCodec {
	return batchCodec{encoding.GetCodecV2("proto"), new(wire.Buffers)}
}

func (c batchCodec) Marshal(v any) (mem.BufferSlice, error) {
	response, ok := v.(*sinkpb.DeliverResponse)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := 0
	for _, r := range response.GetResults() {
		size += maxResultOverhead + len(r.GetDeliveryId()) + len(r.GetMessage())
	}
	buf := c.buffers.Get(size)
	*buf = appendResponse((*buf)[:0], response)
	return mem.BufferSlice{mem.NewBuffer(buf, c.buffers)}, nil
}

// maxResultOverhead is more than a result takes up besides its texts.
const maxResultOverhead = 64

// appendResponse writes a response as proto.Marshal does. Its texts are UTF-8.
func appendResponse(b []byte, response *sinkpb.DeliverResponse) []byte {
	for _, r := range response.GetResults() {
		after := 0
		if r.RetryAfter != nil {
			after = proto.Size(r.RetryAfter)
		}
		size := 0
		if r.DeliveryId != "" {
			size += 1 + protowire.SizeBytes(len(r.DeliveryId))
		}
		if r.Outcome != 0 {
			size += 1 + protowire.SizeVarint(uint64(r.Outcome)) //nolint:gosec // as protobuf does
		}
		if r.Message != "" {
			size += 1 + protowire.SizeBytes(len(r.Message))
		}
		if r.RetryAfter != nil {
			size += 1 + protowire.SizeBytes(after)
		}
		b = appendHead(b, 1, size)
		if r.DeliveryId != "" {
			b = append(appendHead(b, 1, len(r.DeliveryId)), r.DeliveryId...)
		}
		if r.Outcome != 0 {
			b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), uint64(r.Outcome)) //nolint:gosec // as protobuf does
		}
		if r.Message != "" {
			b = append(appendHead(b, 3, len(r.Message)), r.Message...)
		}
		if r.RetryAfter != nil {
			b = appendHead(b, 4, after)
			b, _ = proto.MarshalOptions{}.MarshalAppend(b, r.RetryAfter) // it holds nothing that could be wrong
		}
	}
	return b
}

func appendHead(b []byte, num protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, num, protowire.BytesType), uint64(size)) //nolint:gosec // a length
}

func (c batchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	req, ok := v.(*sinkpb.DeliverRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(c.buffers)
	defer buf.Free()
	return unmarshalDeliver(buf.ReadOnlyData(), req)
}

// unmarshalDeliver reads data into req as proto.Unmarshal does, except that
// unknown fields are dropped. It keeps nothing of data.
func unmarshalDeliver(data []byte, req *sinkpb.DeliverRequest) error {
	if readRequest(data, req) {
		return nil
	}
	// Something unusual, if allowed: fields given twice, text that is not UTF-8,
	// damage. Then the library decides.
	proto.Reset(req)
	return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, req)
}

func readRequest(data []byte, req *sinkpb.DeliverRequest) bool {
	n := 0
	for fields := wire.FieldsOf(data); fields.Next(); {
		if fields.Num == 2 {
			n++
		}
	}
	var (
		deliveries = make([]sinkpb.Delivery, n)
		events     = make([]sinkpb.Event, n)
		times      = make([][2]timestamppb.Timestamp, n)
	)
	req.Deliveries = make([]*sinkpb.Delivery, 0, n)
	fields := wire.FieldsOf(data)
	for fields.Next() {
		if fields.Num > 3 {
			continue
		}
		if fields.Typ != protowire.BytesType {
			return false
		}
		ok := false
		switch fields.Num {
		case 1:
			if req.Sink == nil {
				req.Sink = new(sinkpb.SinkRef)
				ok = readRef(fields.Bytes, req.Sink)
			}
		case 2:
			i := len(req.Deliveries)
			req.Deliveries = append(req.Deliveries, &deliveries[i])
			ok = readDelivery(fields.Bytes, &deliveries[i], &events[i], &times[i])
		case 3:
			if req.Timeout == nil {
				req.Timeout = new(durationpb.Duration)
				ok = readSpan(fields.Bytes, &req.Timeout.Seconds, &req.Timeout.Nanos)
			}
		}
		if !ok {
			return false
		}
	}
	return !fields.Damaged()
}

// readDelivery reads a delivery. Its strings and its body share one copy of the
// bytes, so that whoever keeps a part of one event keeps no other event alive.
func readDelivery(msg []byte, d *sinkpb.Delivery, event *sinkpb.Event, times *[2]timestamppb.Timestamp) bool {
	var maps []byte
	fields := wire.FieldsOf(bytes.Clone(msg))
	for fields.Next() {
		ok := true
		switch fields.Num {
		case 1:
			ok = readText(&fields, &d.Id)
		case 2:
			ok = fields.Typ == protowire.BytesType && d.Event == nil && readEvent(fields.Bytes, event, times)
			d.Event = event
		case 3:
			ok = fields.Typ == protowire.VarintType
			d.Attempt = uint32(fields.Varint) //nolint:gosec // as protobuf does
		case 4:
			ok = readText(&fields, &d.Pipeline)
		case 5, 6:
			maps = append(maps, fields.Whole...)
		}
		if !ok {
			return false
		}
	}
	if fields.Damaged() {
		return false
	}
	return maps == nil || proto.UnmarshalOptions{Merge: true, DiscardUnknown: true}.Unmarshal(maps, d) == nil
}

func readEvent(msg []byte, event *sinkpb.Event, times *[2]timestamppb.Timestamp) bool {
	fields := wire.FieldsOf(msg)
	for fields.Next() {
		ok := true
		switch fields.Num {
		case 1:
			ok = readText(&fields, &event.Id)
		case 2:
			ok = readText(&fields, &event.Source)
		case 3:
			ok = readText(&fields, &event.Type)
		case 4:
			ok = readText(&fields, &event.Subject)
		case 5:
			ok = readTime(&fields, &event.Time, &times[0])
		case 6:
			ok = readTime(&fields, &event.Accepted, &times[1])
		case 7:
			ok = readText(&fields, &event.ContentType)
		case 8:
			ok = fields.Typ == protowire.BytesType
			event.Body = fields.Bytes[:len(fields.Bytes):len(fields.Bytes)]
		}
		if !ok {
			return false
		}
	}
	return !fields.Damaged()
}

func readText(field *wire.Fields, text *string) bool {
	if field.Typ != protowire.BytesType || !utf8.Valid(field.Bytes) {
		return false
	}
	// The bytes are a copy that nobody else writes to.
	*text = unsafe.String(unsafe.SliceData(field.Bytes), len(field.Bytes))
	return true
}

func readTime(field *wire.Fields, target **timestamppb.Timestamp, t *timestamppb.Timestamp) bool {
	if field.Typ != protowire.BytesType || *target != nil {
		return false
	}
	*target = t
	return readSpan(field.Bytes, &t.Seconds, &t.Nanos)
}

// readSpan reads a Timestamp or a Duration.
func readSpan(msg []byte, seconds *int64, nanos *int32) bool {
	parts := wire.FieldsOf(msg)
	for parts.Next() {
		switch parts.Num {
		case 1:
			*seconds = int64(parts.Varint) //nolint:gosec // as protobuf does
		case 2:
			*nanos = int32(parts.Varint) //nolint:gosec // as protobuf does
		default:
			continue
		}
		if parts.Typ != protowire.VarintType {
			return false
		}
	}
	return !parts.Damaged()
}

// readRef reads a SinkRef. It keeps nothing of msg.
func readRef(msg []byte, ref *sinkpb.SinkRef) bool {
	parts := wire.FieldsOf(msg)
	for parts.Next() {
		switch parts.Num {
		case 1:
			if parts.Typ != protowire.BytesType || !utf8.Valid(parts.Bytes) {
				return false
			}
			ref.Name = string(parts.Bytes)
		case 2:
			if parts.Typ != protowire.VarintType {
				return false
			}
			ref.Generation = parts.Varint
		}
	}
	return !parts.Damaged()
}
