package queue

import (
	"errors"
	"fmt"
	"math"
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

// field is one field of a record: number is a varint's value, bytes those of a
// length-delimited one.
type field struct {
	num    protowire.Number
	typ    protowire.Type
	number uint64
	bytes  []byte
	text   string // bytes again, where there is a text of the record; see eachFieldOf
}

var errTruncated = errors.New("record is cut short or malformed")

// eachField calls f with the fields of a record. A field of another wire type
// than the two that records use is skipped.
func eachField(b []byte, f func(field) error) error { return eachFieldOf(b, "", f) }

// eachFieldOf is eachField for a record of which text is the beginning: strings that
// lie in it become parts of it, where others are copied one by one.
func eachFieldOf(b []byte, text string, f func(field) error) error {
	whole := len(b)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		fl := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			fl.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			fl.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errTruncated
		}
		b = b[n:]
		if typ != protowire.VarintType && typ != protowire.BytesType {
			continue
		}
		if end := whole - len(b); end <= len(text) {
			fl.text = text[end-len(fl.bytes) : end]
		}
		if err := f(fl); err != nil {
			return fmt.Errorf("field %d: %w", num, err)
		}
	}
	return nil
}

func (f field) asBytes() ([]byte, error) {
	if f.typ != protowire.BytesType {
		return nil, errors.New("is a number")
	}
	return f.bytes, nil
}

func (f field) asString() (string, error) {
	b, err := f.asBytes()
	if err == nil && f.text != "" {
		return f.text, nil
	}
	return string(b), err
}

// asUint checks that the number is at most limit.
func (f field) asUint(limit uint64) (uint64, error) {
	if f.typ != protowire.VarintType {
		return 0, errors.New("is not a number")
	}
	if f.number > limit {
		return 0, fmt.Errorf("%d is above %d", f.number, limit)
	}
	return f.number, nil
}

func (f field) asCount() (int64, error) {
	n, err := f.asUint(math.MaxInt64)
	return int64(n), err
}

func (f field) asTime() (time.Time, error) {
	b, err := f.asBytes()
	if err != nil {
		return time.Time{}, err
	}
	var sec int64
	var nsec uint64
	err = eachField(b, func(f field) (err error) {
		var n uint64
		switch f.num {
		case 1:
			n, err = f.asUint(math.MaxUint64)
			sec = protowire.DecodeZigZag(n)
		case 2:
			nsec, err = f.asUint(1e9 - 1)
		}
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	return time.Unix(sec, int64(nsec)).UTC(), nil
}

func (f field) asPair() (first, second string, err error) {
	b, err := f.asBytes()
	if err != nil {
		return "", "", err
	}
	err = eachFieldOf(b, f.text, func(f field) (err error) {
		switch f.num {
		case 1:
			first, err = f.asString()
		case 2:
			second, err = f.asString()
		}
		return err
	})
	return first, second, err
}

func (f field) asRoute() (r route, err error) {
	if r.pipeline, r.sink, err = f.asPair(); err != nil {
		return r, err
	}
	return r, eachField(f.bytes, func(f field) (err error) {
		if f.num == 3 {
			r.order, err = f.asUint(math.MaxUint64)
		}
		return err
	})
}

func (f field) asPosition() (position, error) {
	b, err := f.asBytes()
	if err != nil {
		return position{}, err
	}
	var p position
	err = eachField(b, func(f field) (err error) {
		var n uint64
		switch f.num {
		case 1:
			n, err = f.asUint(math.MaxUint64)
			p.at = protowire.DecodeZigZag(n)
		case 2:
			p.seq, err = f.asUint(math.MaxUint64)
		case 3:
			n, err = f.asUint(math.MaxUint32)
			p.index = uint32(n)
		}
		return err
	})
	return p, err
}

// outline tells how many of its repeated fields an event's record has, and how long
// it is before its body. What is malformed is left for eachField to say.
func outline(b []byte) (headers, query, routes, head int) {
	for head < len(b) {
		num, typ, n := protowire.ConsumeField(b[head:])
		if n < 0 {
			return headers, query, routes, len(b)
		}
		if typ != protowire.BytesType {
			num = 0
		}
		switch num {
		case 9:
			headers++
		case 10:
			query++
		case 11:
			return headers, query, routes, head
		case 12:
			routes++
		}
		head += n
	}
	return headers, query, routes, head
}

// decodeEvent reads an event's record. The result does not refer to b. Every delivery
// costs this once, so all strings are parts of one.
func decodeEvent(b []byte) (eventRecord, error) {
	headers, query, routes, head := outline(b)
	ev := &event.Event{}
	if headers+query > 0 {
		pairs := make([]event.Pair, headers+query)
		ev.Headers, ev.Query = pairs[:0:headers], pairs[headers:headers]
	}
	r := eventRecord{event: ev, routes: make([]route, 0, min(routes, maxRoutes))}
	seenID := false
	err := eachFieldOf(b, string(b[:head]), func(f field) (err error) {
		switch f.num {
		case 1:
			var id []byte
			if id, err = f.asBytes(); err == nil && len(id) != len(ev.ID) {
				err = fmt.Errorf("an event id has %d bytes, not %d", len(ev.ID), len(id))
			}
			copy(ev.ID[:], id)
			seenID = true
		case 2:
			ev.Source, err = f.asString()
		case 3:
			ev.Type, err = f.asString()
		case 4:
			ev.Subject, err = f.asString()
		case 5:
			ev.Time, err = f.asTime()
		case 6:
			ev.Accepted, err = f.asTime()
		case 7:
			ev.RemoteAddr, err = f.asString()
		case 8:
			ev.ContentType, err = f.asString()
		case 9, 10:
			to := &ev.Headers
			if f.num == 10 {
				to = &ev.Query
			}
			var p event.Pair
			p.Name, p.Value, err = f.asPair()
			*to = append(*to, p)
		case 11:
			var body []byte
			body, err = f.asBytes()
			ev.Body = append([]byte(nil), body...)
		case 12:
			var rt route
			rt, err = f.asRoute()
			if len(r.routes) >= maxRoutes {
				return fmt.Errorf("more than %d routes", maxRoutes)
			}
			r.routes = append(r.routes, rt)
		}
		return err
	})
	switch {
	case err != nil:
		return eventRecord{}, fmt.Errorf("event: %w", err)
	case !seenID:
		return eventRecord{}, errors.New("event: no id")
	case len(r.routes) == 0:
		return eventRecord{}, errors.New("event: no routes")
	}
	return r, nil
}

func decodeDelivery(b []byte) (deliveryRecord, error) {
	var r deliveryRecord
	err := eachField(b, func(f field) (err error) {
		var n uint64
		var s string
		switch f.num {
		case 1:
			r.since, err = f.asTime()
		case 2:
			n, err = f.asUint(math.MaxInt32)
			r.attempts = int(n)
		case 3:
			r.err, err = f.asString()
		case 4:
			s, err = f.asString()
			r.reason = event.Reason(s)
		case 5:
			n, err = f.asUint(math.MaxInt32)
			r.eventLen = int(n)
		case 6:
			n, err = f.asUint(math.MaxInt32)
			r.suspicion.Crashes = int(n)
		case 7:
			n, err = f.asUint(math.MaxInt32)
			r.suspicion.Alone = int(n)
		case 8:
			r.suspicion.Delivered, err = f.asCount()
		case 9:
			r.order, err = f.asUint(math.MaxUint64)
		}
		return err
	})
	if err != nil {
		return deliveryRecord{}, fmt.Errorf("delivery: %w", err)
	}
	return r, nil
}

func decodeSink(b []byte) (sinkRecord, error) {
	var r sinkRecord
	err := eachField(b, func(f field) (err error) {
		switch f.num {
		case 1:
			r.counts.fresh, err = f.asCount()
		case 2:
			r.counts.delayed, err = f.asCount()
		case 3:
			r.counts.dead, err = f.asCount()
		case 4:
			r.counts.bytes, err = f.asCount()
		case 5:
			r.fresh, err = f.asPosition()
		case 6:
			r.delayed, err = f.asPosition()
		case 7:
			r.age, err = f.asPosition()
		case 8:
			r.counts.delivered, err = f.asCount()
		case 9:
			r.counts.parked, err = f.asCount()
		case 10:
			r.counts.chains, err = f.asCount()
		case 11:
			r.counts.deadBytes, err = f.asCount()
		case 12:
			r.dead, err = f.asPosition()
		}
		return err
	})
	if err != nil {
		return sinkRecord{}, fmt.Errorf("state of a sink: %w", err)
	}
	if r.counts.dead == 0 {
		r.dead = position{} // as appendSink leaves it out
	}
	return r, nil
}

func decodeChain(b []byte) (chainRecord, error) {
	var r chainRecord
	err := eachField(b, func(f field) (err error) {
		switch f.num {
		case 1:
			r.n, err = f.asCount()
		case 2:
			r.from, err = f.asPosition()
		}
		return err
	})
	if err == nil && r.n == 0 {
		err = errors.New("it has no deliveries")
	}
	if err != nil {
		return chainRecord{}, fmt.Errorf("state of an order key: %w", err)
	}
	return r, nil
}

func decodeStore(b []byte) (storeRecord, error) {
	var r storeRecord
	err := eachField(b, func(f field) (err error) {
		var n uint64
		switch f.num {
		case 1:
			r.nextSeq, err = f.asUint(math.MaxUint64)
		case 2:
			n, err = f.asUint(math.MaxUint32)
			r.nextSink = uint32(n)
		case 3:
			r.bytes, err = f.asCount()
		case 4:
			n, err = f.asUint(math.MaxUint64)
			r.once = protowire.DecodeZigZag(n)
		}
		return err
	})
	if err != nil {
		return storeRecord{}, fmt.Errorf("state of the store: %w", err)
	}
	return r, nil
}

// decodeNumber reads a record whose field 1 is a number: the format version and
// the deliveries left.
func decodeNumber(b []byte) (uint64, error) {
	var n uint64
	err := eachField(b, func(f field) (err error) {
		if f.num == 1 {
			n, err = f.asUint(math.MaxUint32)
		}
		return err
	})
	return n, err
}

// decodeName reads the name of a sink.
func decodeName(b []byte) (string, error) {
	var s string
	err := eachField(b, func(f field) (err error) {
		if f.num == 1 {
			s, err = f.asString()
		}
		return err
	})
	return s, err
}
