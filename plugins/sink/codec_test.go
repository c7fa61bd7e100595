package sink

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/callbackd/callbackd/plugins/internal/sinkpb"
)

// FuzzUnmarshalDeliver holds the codec to what the protobuf library reads.
func FuzzUnmarshalDeliver(f *testing.F) {
	ds := deliveries("a", "b", "é")
	ds[1].PerEvent = map[string]*sinkpb.Value{"text": {Kind: &sinkpb.Value_Text{Text: "x"}}, "null": {}}
	ds[2].Event = nil
	whole, err := proto.Marshal(request(time.Second, ds))
	if err != nil {
		f.Fatal(err)
	}
	field := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	f.Add([]byte{})
	f.Add(whole)
	f.Add(append(bytes.Clone(whole), whole...)) // sink and timeout twice: merged
	f.Add(whole[:len(whole)-3])
	f.Add(field(2, append(field(2, field(1, []byte("a"))), field(2, field(3, []byte("b")))...))) // an event in two parts
	f.Add(field(2, field(1, []byte("\xff"))))                                                    // not UTF-8
	f.Add(field(2, field(2, field(8, nil))))
	f.Add(field(2, field(2, append(field(5, []byte{8, 1}), field(5, []byte{16, 2})...)))) // a time in two parts
	f.Add(field(2, []byte{0x08, 1, 0x1d, 1, 2, 3, 4}))                                    // numbers in the place of text
	f.Add(append(field(2, field(99, []byte("future"))), 0x2b, 0x2c))                      // unknown fields, a group
	f.Fuzz(func(t *testing.T, data []byte) {
		var want, got sinkpb.DeliverRequest
		wantErr := proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, &want)
		input := bytes.Clone(data)
		err := unmarshalDeliver(input, &got)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%v, the library says %v", err, wantErr)
		}
		clear(input) // nothing of it may be kept
		if err == nil && !proto.Equal(&got, &want) {
			t.Errorf("got  %v\nwant %v", &got, &want)
		}
	})
}

func TestUnmarshalDeliverAllocates(t *testing.T) {
	ds := deliveries("1", "2", "3", "4", "5", "6", "7", "8")
	for _, d := range ds {
		d.Headers = nil
	}
	data, err := proto.Marshal(request(time.Second, ds))
	if err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(100, func() {
		var req sinkpb.DeliverRequest
		if err := unmarshalDeliver(data, &req); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 8+12 {
		t.Errorf("%v allocations for 8 deliveries", allocs)
	}
}

func BenchmarkUnmarshalDeliver(b *testing.B) {
	var ds []*sinkpb.Delivery
	for range 256 {
		d := deliveries("01JCXY0000000000000000000_0123456789ab")[0]
		d.Headers, d.Event.Body = nil, make([]byte, 350)
		ds = append(ds, d)
	}
	data, err := proto.Marshal(request(time.Second, ds))
	if err != nil {
		b.Fatal(err)
	}
	for name, unmarshal := range map[string]func([]byte, *sinkpb.DeliverRequest) error{
		"codec":   unmarshalDeliver,
		"library": func(data []byte, req *sinkpb.DeliverRequest) error { return proto.Unmarshal(data, req) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var req sinkpb.DeliverRequest
				if err := unmarshal(data, &req); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ds)), "ns/event")
		})
	}
}
