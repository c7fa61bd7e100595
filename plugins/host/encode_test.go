package host

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
	"github.com/callbackd/callbackd/plugins/internal/wire"
	"github.com/callbackd/callbackd/plugins/schema"
)

// asMessage is the request for a batch as the protobuf library would make it.
func asMessage(t *testing.T, ref *sinkpb.SinkRef, b *Batch) *sinkpb.DeliverRequest {
	t.Helper()
	stamp := func(at time.Time) *timestamppb.Timestamp {
		if at.IsZero() {
			return nil
		}
		return timestamppb.New(at)
	}
	out := &sinkpb.DeliverRequest{Sink: ref, Timeout: durationpb.New(b.Timeout)}
	for _, d := range b.Deliveries {
		m := &sinkpb.Delivery{
			Id: text(d.ID), Attempt: uint32(max(0, d.Attempt)), Pipeline: text(d.Pipeline),
			Event: &sinkpb.Event{
				Id: text(d.Event.ID), Source: text(d.Event.Source), Type: text(d.Event.Type), Subject: text(d.Event.Subject),
				Time: stamp(d.Event.Time), Accepted: stamp(d.Event.Accepted), ContentType: text(d.Event.ContentType), Body: d.Event.Body,
			},
		}
		for name, value := range d.Headers {
			if m.Headers == nil {
				m.Headers = make(map[string]string)
			}
			m.Headers[text(name)] = text(value)
		}
		for key, value := range d.PerEvent {
			if m.PerEvent == nil {
				m.PerEvent = make(map[string]*sinkpb.Value)
			}
			converted, err := wire.ValueToProto(value)
			if err != nil {
				t.Fatal(err)
			}
			m.PerEvent[key] = converted
		}
		out.Deliveries = append(out.Deliveries, m)
	}
	return out
}

func TestEncodeBatch(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)
	event := Event{ID: "E", Source: "s", Type: "t", Subject: "ü", Time: now, Accepted: now.Add(time.Hour), ContentType: "text/plain", Body: []byte("body\x00\xff")}
	for name, deliveries := range map[string][]Delivery{
		"usual":           {{ID: "1", Attempt: 1, Pipeline: "p", Event: event}, {ID: "2", Attempt: 300, Pipeline: "p", Event: event}},
		"empty":           {{}},
		"negative":        {{ID: "1", Attempt: -5}},
		"long":            {{ID: strings.Repeat("i", 200), Attempt: 1, Pipeline: strings.Repeat("p", 20_000), Event: Event{Body: bytes.Repeat([]byte("b"), 100_000)}}},
		"odd times":       {{ID: "1", Event: Event{Time: time.Unix(0, 0), Accepted: time.Unix(-5, 5)}}},
		"maps":            {{ID: "1", Headers: map[string]string{"A": "b", "": "", "long": strings.Repeat("v", 500)}, PerEvent: map[string]schema.Value{"text": "x", "n": int64(5), "": nil, "list": schema.List{"a", true}}}},
		"not UTF-8":       {{ID: "1\xff", Pipeline: "\xfe", Headers: map[string]string{"\xff": "\xff"}, Event: Event{ID: "\xff", Source: "\xff", Type: "\xff", Subject: "\xff", ContentType: "\xff", Body: []byte("\xff")}}},
		"none to deliver": nil,
	} {
		t.Run(name, func(t *testing.T) {
			ref := &sinkpb.SinkRef{Name: "under-test", Generation: 7}
			b := &Batch{Timeout: 1500 * time.Millisecond, Deliveries: deliveries}
			codec := newBatchCodec(ref)
			request, sent, err := codec.encode(b, func(i int, why error) { t.Errorf("%d is refused: %v", i, why) })
			if err != nil || sent != len(deliveries) {
				t.Fatalf("%d sent, %v", sent, err)
			}
			data, err := codec.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			var got sinkpb.DeliverRequest
			if err := proto.Unmarshal(data.Materialize(), &got); err != nil {
				t.Fatal(err)
			}
			if want := asMessage(t, ref, b); !proto.Equal(&got, want) {
				t.Errorf("got  %v\nwant %v", &got, want)
			}
			data.Free()
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	codec := newBatchCodec(&sinkpb.SinkRef{})
	var refused []int
	request, sent, err := codec.encode(&Batch{Deliveries: []Delivery{
		{ID: "1"}, {ID: "2", PerEvent: map[string]schema.Value{"x": make(chan int)}}, {ID: "3", PerEvent: map[string]schema.Value{"\xff": "x"}},
	}}, func(i int, why error) { refused = append(refused, i) })
	if err != nil || sent != 1 || !reflect.DeepEqual(refused, []int{1, 2}) {
		t.Errorf("%d sent, refused %v, %v", sent, refused, err)
	}
	codec.discard(request)
}

// FuzzReadResults holds the reading of results to what the protobuf library reads.
func FuzzReadResults(f *testing.F) {
	whole, err := proto.Marshal(&sinkpb.DeliverResponse{Results: []*sinkpb.Result{
		{DeliveryId: "1", Outcome: sinkpb.Outcome_OUTCOME_DELIVERED},
		{DeliveryId: "é", Outcome: 99, Message: "no", RetryAfter: durationpb.New(time.Minute)},
		{},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add([]byte{})
	f.Add(whole[:len(whole)-2])
	f.Add([]byte{0x0a, 2, 0x10, 0xff})
	f.Add([]byte{0x0a, 2, 0x22, 0x00})
	f.Fuzz(func(t *testing.T, data []byte) {
		var want sinkpb.DeliverResponse
		wantErr := proto.Unmarshal(data, &want)
		var got results
		err := newBatchCodec(nil).Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, &got)
		if wantErr != nil {
			return // here more is taken
		}
		if err != nil || len(got.list) != len(want.GetResults()) {
			t.Fatalf("%d results, %v, want %d", len(got.list), err, len(want.GetResults()))
		}
		for i, w := range want.GetResults() {
			g := got.list[i]
			if string(g.id) != w.GetDeliveryId() || string(g.message) != w.GetMessage() || g.outcome != w.GetOutcome() {
				t.Errorf("%d: got %q %q %v, want %v", i, g.id, g.message, g.outcome, w)
			}
		}
	})
}
