package queue

import (
	"time"

	"github.com/callbackd/callbackd/core/event"
	"google.golang.org/protobuf/encoding/protowire"
)

// Records are protobuf messages, written by hand. A field number keeps its
// meaning for ever; a reader skips fields that it does not know, so that a store
// survives an upgrade.

// storeFormat is the version of the layout. A store with a higher one is
// refused.
const storeFormat = 1

// Limits of what one Append may bring.
const (
	maxEventLen = 64 << 20
	maxRoutes   = 1 << 14
)

// eventRecord is an event as it is kept.
type eventRecord struct {
	event  *event.Event
	routes []route
}

type route struct {
	pipeline, sink string
	order          uint64
}

// deliveryRecord is what is kept with a delivery.
type deliveryRecord struct {
	since    time.Time
	attempts int
	err      string
	reason   event.Reason
	// eventLen is the length of the event's record: the limits of a batch are
	// met without reading the event.
	eventLen int
	// suspicion is none in the records of older versions.
	suspicion Suspicion
	// order is the order key of one that was tried, or that waits for such a one.
	// A dead letter has none, and so has what was redriven.
	order uint64
}

// sinkRecord is the state of a sink.
type sinkRecord struct {
	counts counts
	// Nothing of the sink is kept before these positions.
	fresh, delayed, age, dead position
}

// counts of the deliveries of one sink.
type counts struct {
	fresh, delayed, parked, dead int64
	// chains is how many order keys have a delivery that is to be tried again.
	chains int64
	// bytes of what is kept for its unsettled deliveries and for its dead letters,
	// with the events that they refer to.
	bytes, deadBytes int64
	// delivered is how many were settled as delivered, since there is this count.
	delivered int64
}

// chainRecord is the state of an order key of which one delivery is to be tried
// again.
type chainRecord struct {
	// n counts that one and those parked behind it, of which none is before from.
	n    int64
	from position
}

// storeRecord is the state of the store.
type storeRecord struct {
	nextSeq  uint64
	nextSink uint32
	bytes    int64
	// once is a time before which no key is remembered, in nanoseconds.
	once int64
}

func appendString(b []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func appendUint(b []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

// appendTimeField keeps a time exactly: seconds in field 1, nanoseconds in 2.
// The zero time is left out.
func appendTimeField(b []byte, n protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	sec, nsec := protowire.EncodeZigZag(t.Unix()), uint64(t.Nanosecond())
	size := 1 + protowire.SizeVarint(sec)
	if nsec != 0 {
		size += 1 + protowire.SizeVarint(nsec)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(size))
	b = protowire.AppendVarint(protowire.AppendTag(b, 1, protowire.VarintType), sec)
	return appendUint(b, 2, nsec)
}

// appendPair keeps two strings as a message.
func appendPair(b []byte, n protowire.Number, first, second string) []byte {
	size := 0
	for _, s := range [...]string{first, second} {
		if s != "" {
			size += 1 + protowire.SizeBytes(len(s))
		}
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, n, protowire.BytesType), uint64(size))
	return appendString(appendString(b, 1, first), 2, second)
}

// appendRoute keeps a route, with its order key in field 3.
func appendRoute(b []byte, n protowire.Number, r event.Route) []byte {
	if r.Order == 0 {
		return appendPair(b, n, r.Pipeline, r.Sink)
	}
	v := appendUint(appendString(appendString(nil, 1, r.Pipeline), 2, r.Sink), 3, r.Order)
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func appendPosition(b []byte, n protowire.Number, p position) []byte {
	var m [40]byte
	v := appendUint(m[:0], 1, protowire.EncodeZigZag(p.at))
	v = appendUint(v, 2, p.seq)
	v = appendUint(v, 3, uint64(p.index))
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), v)
}

func appendEvent(b []byte, ev *event.Event, routes []event.Route) []byte {
	b = protowire.AppendBytes(protowire.AppendTag(b, 1, protowire.BytesType), ev.ID[:])
	b = appendString(b, 2, ev.Source)
	b = appendString(b, 3, ev.Type)
	b = appendString(b, 4, ev.Subject)
	b = appendTimeField(b, 5, ev.Time)
	b = appendTimeField(b, 6, ev.Accepted)
	b = appendString(b, 7, ev.RemoteAddr)
	b = appendString(b, 8, ev.ContentType)
	for _, p := range ev.Headers {
		b = appendPair(b, 9, p.Name, p.Value)
	}
	for _, p := range ev.Query {
		b = appendPair(b, 10, p.Name, p.Value)
	}
	for _, r := range routes {
		b = appendRoute(b, 12, r)
	}
	if len(ev.Body) > 0 {
		b = protowire.AppendBytes(protowire.AppendTag(b, 11, protowire.BytesType), ev.Body)
	}
	return b
}

func appendDelivery(b []byte, r deliveryRecord) []byte {
	b = appendTimeField(b, 1, r.since)
	b = appendUint(b, 2, uint64(r.attempts))
	b = appendString(b, 3, r.err)
	b = appendString(b, 4, string(r.reason))
	b = appendUint(b, 5, uint64(r.eventLen))
	b = appendUint(b, 6, uint64(r.suspicion.Crashes))
	b = appendUint(b, 7, uint64(r.suspicion.Alone))
	b = appendUint(b, 8, uint64(r.suspicion.Delivered))
	return appendUint(b, 9, r.order)
}

func appendSink(b []byte, r sinkRecord) []byte {
	b = appendUint(b, 1, uint64(r.counts.fresh))
	b = appendUint(b, 2, uint64(r.counts.delayed))
	b = appendUint(b, 3, uint64(r.counts.dead))
	b = appendUint(b, 4, uint64(r.counts.bytes))
	b = appendPosition(b, 5, r.fresh)
	b = appendPosition(b, 6, r.delayed)
	b = appendPosition(b, 7, r.age)
	b = appendUint(b, 8, uint64(r.counts.delivered))
	b = appendUint(b, 9, uint64(r.counts.parked))
	b = appendUint(b, 10, uint64(r.counts.chains))
	b = appendUint(b, 11, uint64(r.counts.deadBytes))
	if r.counts.dead == 0 {
		return b
	}
	return appendPosition(b, 12, r.dead)
}

func appendChain(b []byte, r chainRecord) []byte {
	return appendPosition(appendUint(b, 1, uint64(r.n)), 2, r.from)
}

func appendStore(b []byte, r storeRecord) []byte {
	b = appendUint(b, 1, r.nextSeq)
	b = appendUint(b, 2, uint64(r.nextSink))
	b = appendUint(b, 3, uint64(r.bytes))
	return appendUint(b, 4, protowire.EncodeZigZag(r.once))
}
