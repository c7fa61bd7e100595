package queue

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"google.golang.org/protobuf/encoding/protowire"
)

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
