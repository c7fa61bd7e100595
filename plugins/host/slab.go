package host

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
)

// perDelivery is more than a delivery's fields take up besides its texts.
const perDelivery = 128

// slab holds the messages of a request, to be used again for the next one: at
// hundreds of thousands of deliveries a second they would be most of the garbage.
type slab struct {
	request    sinkpb.DeliverRequest
	deliveries []sinkpb.Delivery
	events     []sinkpb.Event
	times      []timestamppb.Timestamp // two for each event
	pointers   []*sinkpb.Delivery
}

// fill makes the request for a batch. Deliveries that cannot be sent are told to
// refuse and left out. The request is valid until clear.
func (s *slab) fill(ref *sinkpb.SinkRef, batch *Batch, refuse func(index int, why error)) (*sinkpb.DeliverRequest, error) {
	s.grow(len(batch.Deliveries))
	s.pointers = s.pointers[:0]
	size := 0
	for i := range batch.Deliveries {
		in, out := &batch.Deliveries[i], &s.deliveries[i]
		perEvent, perEventSize, err := perEventToProto(in)
		if err != nil {
			refuse(i, err)
			continue
		}
		out.Id = text(in.ID)
		out.Attempt = uint32(min(max(in.Attempt, 0), math.MaxInt32))
		out.Pipeline = text(in.Pipeline)
		out.Headers = headersToProto(in.Headers)
		out.PerEvent = perEvent
		out.Event = s.event(i, &in.Event)
		s.pointers = append(s.pointers, out)
		size += perDelivery + perEventSize + textSize(in)
	}
	if size > wire.MaxMessageBytes {
		s.clear()
		return nil, fmt.Errorf("%w: %d deliveries have %d bytes, at most %d can be sent at once",
			ErrTooLarge, len(batch.Deliveries), size, wire.MaxMessageBytes)
	}
	s.request.Sink = ref
	s.request.Deliveries = s.pointers
	s.request.Timeout = durationpb.New(batch.Timeout)
	return &s.request, nil
}

func (s *slab) event(i int, in *Event) *sinkpb.Event {
	out := &s.events[i]
	out.Id = text(in.ID)
	out.Source = text(in.Source)
	out.Type = text(in.Type)
	out.Subject = text(in.Subject)
	out.ContentType = text(in.ContentType)
	out.Body = in.Body
	out.Time = timestamp(&s.times[2*i], in.Time)
	out.Accepted = timestamp(&s.times[2*i+1], in.Accepted)
	return out
}

func (s *slab) grow(n int) {
	if cap(s.deliveries) < n {
		s.deliveries = make([]sinkpb.Delivery, n)
		s.events = make([]sinkpb.Event, n)
		s.times = make([]timestamppb.Timestamp, 2*n)
		s.pointers = make([]*sinkpb.Delivery, 0, n)
	}
	s.deliveries = s.deliveries[:cap(s.deliveries)]
	s.events = s.events[:cap(s.events)]
	s.times = s.times[:cap(s.times)]
}

// clear lets go of everything that belongs to a batch.
func (s *slab) clear() {
	for _, d := range s.pointers {
		if e := d.Event; e != nil {
			e.Id, e.Source, e.Type, e.Subject, e.ContentType, e.Body = "", "", "", "", "", nil
		}
		d.Id, d.Pipeline, d.Headers, d.PerEvent, d.Event = "", "", nil, nil, nil
	}
	s.request.Sink, s.request.Deliveries = nil, nil
}

func timestamp(out *timestamppb.Timestamp, t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	out.Seconds, out.Nanos = t.Unix(), int32(t.Nanosecond())
	return out
}

func textSize(d *Delivery) int {
	e := &d.Event
	size := len(d.ID) + len(d.Pipeline) + len(e.ID) + len(e.Source) + len(e.Type) + len(e.Subject) + len(e.ContentType) + len(e.Body)
	for name, value := range d.Headers {
		size += 16 + len(name) + len(value)
	}
	return size
}

// text is s as the protocol needs it: one string that is not UTF-8 would keep the
// whole batch from being sent.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func headersToProto(headers map[string]string) map[string]string {
	for name, value := range headers {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return repairHeaders(headers)
		}
	}
	return headers
}

func repairHeaders(headers map[string]string) map[string]string {
	out := make(map[string]string, len(headers))
	for name, value := range headers {
		out[text(name)] = text(value)
	}
	return out
}

func perEventToProto(d *Delivery) (values map[string]*sinkpb.Value, size int, err error) {
	if len(d.PerEvent) == 0 {
		return nil, 0, nil
	}
	values = make(map[string]*sinkpb.Value, len(d.PerEvent))
	for key, value := range d.PerEvent {
		converted, err := wire.ValueToProto(value)
		if err == nil && !utf8.ValidString(key) {
			err = fmt.Errorf("the key is not UTF-8")
		}
		if err != nil {
			return nil, 0, fmt.Errorf("per-event attribute %q: %w", key, err)
		}
		values[key] = converted
		size += 16 + len(key) + proto.Size(converted)
	}
	return values, size, nil
}
