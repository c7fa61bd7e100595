package queue

import (
	"bytes"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"pgregory.net/rapid"
)

func FuzzDecode(f *testing.F) {
	ev := benchEvent(7)
	ev.Time = time.Unix(-5, 3)
	f.Add(appendEvent(nil, ev, []event.Route{{Pipeline: "p", Sink: "s"}, {Pipeline: "q", Sink: "s", Order: math.MaxUint64}}))
	f.Add(appendDelivery(nil, deliveryRecord{since: time.Unix(1, 2), attempts: 3, err: "e", reason: event.ReasonCrashed, eventLen: 9}))
	f.Add(appendDelivery(nil, deliveryRecord{since: time.Unix(1, 2), suspicion: Suspicion{Crashes: 4, Alone: 2, Delivered: 7}}))
	f.Add(appendSink(nil, sinkRecord{counts: counts{1, 2, 3, 4, 5, 6, 7, 8}, fresh: lastPosition(), delayed: position{-1, 2, 3}}))
	f.Add(appendPosition(nil, 12, position{at: 24})) // of the dead letters, of which there are none
	f.Add(appendStore(nil, storeRecord{math.MaxUint64, math.MaxUint32, 5, -6}))
	f.Add(appendChain(nil, chainRecord{n: 3, from: position{1, 2, 3}}))
	f.Add([]byte{0xff})
	f.Add([]byte{0x0b, 0x0c}) // a group
	f.Fuzz(func(t *testing.T, b []byte) {
		keep := bytes.Clone(b)
		if r, err := decodeEvent(b); err == nil {
			routes := make([]event.Route, len(r.routes))
			for i, rt := range r.routes {
				routes[i] = event.Route{Pipeline: rt.pipeline, Sink: rt.sink, Order: rt.order}
			}
			again, err := decodeEvent(appendEvent(nil, r.event, routes))
			if err != nil || !sameEvent(r, again) {
				t.Fatalf("%+v became %+v, %v", r.event, again.event, err)
			}
			clear(b) // the event must not refer to it
			if !sameEvent(r, again) {
				t.Fatal("the event changed with the bytes that it was read from")
			}
			copy(b, keep)
		}
		if r, err := decodeDelivery(b); err == nil {
			if again, err := decodeDelivery(appendDelivery(nil, r)); err != nil || again != r {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
		if r, err := decodeSink(b); err == nil {
			if again, err := decodeSink(appendSink(nil, r)); err != nil || again != r {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
		if r, err := decodeStore(b); err == nil {
			if again, err := decodeStore(appendStore(nil, r)); err != nil || again != r {
				t.Fatalf("%+v became %+v, %v", r, again, err)
			}
		}
		_, _ = decodeNumber(b)
		_, _ = decodeName(b)
		for _, space := range []byte{spaceFresh, spaceDead} {
			if p, err := parseTimedKey(b, space); err == nil && !bytes.Equal(appendTimedKey(nil, space, beUint32(b[1:]), p), b) {
				t.Fatalf("key %x became another", b)
			}
		}
		if p, err := parseFreshKey(b); err == nil && !bytes.Equal(appendFreshKey(nil, beUint32(b[1:]), p), b) {
			t.Fatalf("key %x became another", b)
		}
	})
}

func sameEvent(a, b eventRecord) bool {
	return reflect.DeepEqual(a.routes, b.routes) && a.event.ID == b.event.ID && a.event.Source == b.event.Source &&
		a.event.Type == b.event.Type && a.event.Subject == b.event.Subject && a.event.Time.Equal(b.event.Time) &&
		a.event.Accepted.Equal(b.event.Accepted) && a.event.RemoteAddr == b.event.RemoteAddr &&
		a.event.ContentType == b.event.ContentType && reflect.DeepEqual(a.event.Headers, b.event.Headers) &&
		reflect.DeepEqual(a.event.Query, b.event.Query) && bytes.Equal(a.event.Body, b.event.Body)
}

// Field numbers and keys are what old stores have: a change of these bytes is a
// change of the format.
func TestRecordsStayReadable(t *testing.T) {
	const old = "\n\x10\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x12\x01s\x1a\x01t\"\x01u*\x04\b\x02\x10\x032\x02\b\x04:\x01rB\x01cJ\x06\n\x01a\x12\x01bR\x06\n\x01q\x12\x01v" +
		"b\x06\n\x01p\x12\x01kZ\x02{}\x98\x06\x01" // and a field of a newer version
	r, err := decodeEvent([]byte(old))
	want := eventRecord{
		event: &event.Event{
			ID: [16]byte{15: 7}, Source: "s", Type: "t", Subject: "u", Time: time.Unix(1, 3), Accepted: time.Unix(2, 0),
			RemoteAddr: "r", ContentType: "c", Headers: event.Pairs{{Name: "a", Value: "b"}},
			Query: event.Pairs{{Name: "q", Value: "v"}}, Body: []byte("{}"),
		},
		routes: []route{{pipeline: "p", sink: "k"}},
	}
	if err != nil || !sameEvent(r, want) {
		t.Fatalf("%+v %+v, %v", r.event, r.routes, err)
	}
	if got := appendEvent(nil, want.event, []event.Route{{Pipeline: "p", Sink: "k"}}); string(got) != old[:len(old)-3] {
		t.Fatalf("%q", got)
	}
	d := deliveryRecord{since: time.Unix(1, 0).UTC(), attempts: 2, err: "e", reason: "r", eventLen: 3}
	if got := string(appendDelivery(nil, d)); got != "\n\x02\b\x02\x10\x02\x1a\x01e\"\x01r(\x03" {
		t.Fatalf("%q", got)
	}
	// A record of before there were suspicions, and one of a version to come.
	for _, extra := range []string{"", "\x98\x06\x01"} {
		got, err := decodeDelivery([]byte("\n\x02\b\x02\x10\x02\x1a\x01e\"\x01r(\x03" + extra))
		want := deliveryRecord{since: time.Unix(1, 0).UTC(), attempts: 2, err: "e", reason: "r", eventLen: 3}
		if err != nil || got != want || got.suspicion.Suspect() {
			t.Fatalf("%+v, %v; want %+v", got, err, want)
		}
	}
	d.suspicion = Suspicion{Crashes: 4, Alone: 2, Delivered: 300}
	if got := string(appendDelivery(nil, d)); got != "\n\x02\b\x02\x10\x02\x1a\x01e\"\x01r(\x030\x048\x02@\xac\x02" {
		t.Fatalf("%q", got)
	}
	if got := string(appendSink(nil, sinkRecord{counts: counts{fresh: 1, delivered: 2}})); got != "\b\x01*\x002\x00:\x00@\x02" {
		t.Fatalf("%q", got)
	}
	if got := string(appendTimedKey(nil, spaceDead, 1, position{at: 2, seq: 3, index: 4})); got !=
		"x\x00\x00\x00\x01\x80\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x04" {
		t.Fatalf("%q", got)
	}
}

// Keys sort as their positions do.
func TestKeyOrder(t *testing.T) {
	gen := rapid.Custom(func(t *rapid.T) position {
		return position{
			at:    rapid.Int64().Draw(t, "at"),
			seq:   rapid.Uint64().Draw(t, "seq"),
			index: rapid.Uint32().Draw(t, "index"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		if got := bytes.Compare(appendTimedKey(nil, spaceDelayed, 1, a), appendTimedKey(nil, spaceDelayed, 1, b)) < 0; got != a.less(b) {
			t.Fatalf("%v < %v: %v", a, b, got)
		}
		if n := a.after(); a != lastPosition() && (!a.less(n) && n != lastPosition()) {
			t.Fatalf("%v is not after %v", n, a)
		}
	})
}
