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
)

// batchCodec is gRPC's codec for protobuf, but for DeliverRequest: that one it
// reads with one allocation for each delivery instead of a dozen. A batch is by
// far the most of what a plugin receives, and reading it was the largest part of
// the cost of the process line.
type batchCodec struct{ encoding.CodecV2 }

func newBatchCodec() batchCodec { return batchCodec{encoding.GetCodecV2("proto")} }

func (c batchCodec) Unmarshal(data mem.BufferSlice, v any) error {
	req, ok := v.(*sinkpb.DeliverRequest)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
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

// eachField calls read for each field of a message: with the bytes of a field of
// that kind, the number of a varint, and the field as a whole. It returns false
// when the message is damaged or read returned false.
func eachField(msg []byte, read func(field wireField) bool) bool {
	for len(msg) > 0 {
		num, typ, tagLen := protowire.ConsumeTag(msg)
		if tagLen < 0 {
			return false
		}
		field := wireField{num: num, typ: typ}
		var n int
		switch typ {
		case protowire.BytesType:
			field.bytes, n = protowire.ConsumeBytes(msg[tagLen:])
		case protowire.VarintType:
			field.varint, n = protowire.ConsumeVarint(msg[tagLen:])
		default:
			n = protowire.ConsumeFieldValue(num, typ, msg[tagLen:])
		}
		if n < 0 {
			return false
		}
		field.whole = msg[:tagLen+n]
		msg = msg[tagLen+n:]
		if !read(field) {
			return false
		}
	}
	return true
}

type wireField struct {
	num    protowire.Number
	typ    protowire.Type
	bytes  []byte
	varint uint64
	whole  []byte
}

func readRequest(data []byte, req *sinkpb.DeliverRequest) bool {
	n := 0
	if !eachField(data, func(field wireField) bool {
		if field.num == 2 {
			n++
		}
		return true
	}) {
		return false
	}
	var (
		deliveries = make([]sinkpb.Delivery, n)
		events     = make([]sinkpb.Event, n)
		times      = make([][2]timestamppb.Timestamp, n)
	)
	req.Deliveries = make([]*sinkpb.Delivery, 0, n)
	return eachField(data, func(field wireField) bool {
		if field.num > 3 {
			return true
		}
		if field.typ != protowire.BytesType {
			return false
		}
		switch field.num {
		case 1:
			if req.Sink != nil {
				return false
			}
			req.Sink = new(sinkpb.SinkRef)
			return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(field.bytes, req.Sink) == nil
		case 2:
			i := len(req.Deliveries)
			req.Deliveries = append(req.Deliveries, &deliveries[i])
			return readDelivery(field.bytes, &deliveries[i], &events[i], &times[i])
		}
		if req.Timeout != nil {
			return false
		}
		req.Timeout = new(durationpb.Duration)
		return proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(field.bytes, req.Timeout) == nil
	})
}

// readDelivery reads a delivery. Its strings and its body share one copy of the
// bytes, so that whoever keeps a part of one event keeps no other event alive.
func readDelivery(msg []byte, d *sinkpb.Delivery, event *sinkpb.Event, times *[2]timestamppb.Timestamp) bool {
	var maps []byte
	ok := eachField(bytes.Clone(msg), func(field wireField) bool {
		switch field.num {
		case 1:
			return readText(field, &d.Id)
		case 2:
			if field.typ != protowire.BytesType || d.Event != nil {
				return false
			}
			d.Event = event
			return readEvent(field.bytes, event, times)
		case 3:
			d.Attempt = uint32(field.varint) //nolint:gosec // as protobuf does
			return field.typ == protowire.VarintType
		case 4:
			return readText(field, &d.Pipeline)
		case 5, 6:
			maps = append(maps, field.whole...)
		}
		return true
	})
	if ok && maps != nil {
		ok = proto.UnmarshalOptions{Merge: true, DiscardUnknown: true}.Unmarshal(maps, d) == nil
	}
	return ok
}

func readEvent(msg []byte, event *sinkpb.Event, times *[2]timestamppb.Timestamp) bool {
	return eachField(msg, func(field wireField) bool {
		switch field.num {
		case 1:
			return readText(field, &event.Id)
		case 2:
			return readText(field, &event.Source)
		case 3:
			return readText(field, &event.Type)
		case 4:
			return readText(field, &event.Subject)
		case 5:
			return readTime(field, &event.Time, &times[0])
		case 6:
			return readTime(field, &event.Accepted, &times[1])
		case 7:
			return readText(field, &event.ContentType)
		case 8:
			event.Body = field.bytes[:len(field.bytes):len(field.bytes)]
			return field.typ == protowire.BytesType
		}
		return true
	})
}

func readText(field wireField, text *string) bool {
	if field.typ != protowire.BytesType || !utf8.Valid(field.bytes) {
		return false
	}
	// The bytes are a copy that nobody else writes to.
	*text = unsafe.String(unsafe.SliceData(field.bytes), len(field.bytes))
	return true
}

func readTime(field wireField, target **timestamppb.Timestamp, t *timestamppb.Timestamp) bool {
	if field.typ != protowire.BytesType || *target != nil {
		return false
	}
	*target = t
	return eachField(field.bytes, func(part wireField) bool {
		switch part.num {
		case 1:
			t.Seconds = int64(part.varint) //nolint:gosec // as protobuf does
		case 2:
			t.Nanos = int32(part.varint) //nolint:gosec // as protobuf does
		default:
			return true
		}
		return part.typ == protowire.VarintType
	})
}
