package queue

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// rebuilder writes a new store of what is in the scratch. Counters, marks and rows of
// order keys are made anew, since they are not to be trusted.
type rebuilder struct {
	scratch *scratch
	result  Salvaged

	store *store
	batch *pebble.Batch
	state storeRecord
	sinks map[uint32]*rebuiltSink
	names map[string]uint32
	now   time.Time
}

type rebuiltSink struct {
	name   string
	record sinkRecord
	// heads are the order keys of which one is to be tried again.
	heads map[uint64]bool
}

func (b *rebuilder) rebuild(ctx context.Context, to string, h *health) (err error) {
	b.now = time.Now()
	if err := b.scratch.index(ctx, &b.result.BadRecords); err != nil {
		return err
	}
	b.readState()
	if b.store, err = openRebuilt(ctx, to, h); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.store.close(h)) }()
	b.batch = b.store.NewBatch()
	defer func() { err = errors.Join(err, b.batch.Close()) }()
	for _, step := range []func(context.Context) error{b.events, b.onces, b.notes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := b.finish(); err != nil {
		return err
	}
	return b.store.Flush()
}

// readState takes over what the counters and names say.
func (b *rebuilder) readState() {
	b.sinks, b.names = make(map[uint32]*rebuiltSink), make(map[string]uint32)
	if e, ok := b.scratch.state[string(keyCounters())]; ok && !e.deleted {
		if r, err := decodeStore(e.value); err == nil {
			b.state.nextSeq, b.state.nextSink = r.nextSeq, r.nextSink
		}
	}
	b.state.nextSeq, b.state.nextSink = max(b.state.nextSeq, 1), max(b.state.nextSink, 1)
	for key, e := range b.scratch.state {
		if key[0] != spaceName || len(key) != 1+4 || e.deleted {
			continue
		}
		if name, err := decodeName(e.value); err == nil && name != "" {
			b.addSink(binary.BigEndian.Uint32([]byte(key[1:])), name)
		}
	}
}

func (b *rebuilder) addSink(id uint32, name string) *rebuiltSink {
	s := &rebuiltSink{name: name, heads: make(map[uint64]bool)}
	last := lastPosition()
	s.record.fresh, s.record.delayed, s.record.age, s.record.dead = last, last, last, last
	if e, ok := b.scratch.state[string(appendSinkKey(nil, spaceSink, id))]; ok && !e.deleted {
		if r, err := decodeSink(e.value); err == nil {
			s.record.counts.delivered = r.counts.delivered
		}
	}
	b.sinks[id], b.names[name] = s, id
	b.state.nextSink = max(b.state.nextSink, id+1)
	return s
}

// sinkOf is the sink of a route; found is the number that its delivery was found
// with, or 0.
func (b *rebuilder) sinkOf(rt route, found uint32) (uint32, *rebuiltSink) {
	if s := b.sinks[found]; s != nil {
		return found, s
	}
	if id, ok := b.names[rt.sink]; ok {
		return id, b.sinks[id]
	}
	if found == 0 {
		found = b.state.nextSink
	}
	return found, b.addSink(found, rt.sink)
}

// events writes the events with their deliveries.
func (b *rebuilder) events(ctx context.Context) (err error) {
	it, err := b.scratch.db.NewIter(&pebble.IterOptions{LowerBound: []byte{scratchIndex}, UpperBound: []byte{scratchIndex + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	more := it.First()
	// upTo calls f with the deliveries of events up to one.
	upTo := func(seq uint64, f func(seq uint64, index uint32, d found)) {
		for ; more; more = it.Next() {
			at := binary.BigEndian.Uint64(it.Key()[1:])
			if at > seq {
				return
			}
			d := decodeFound(it.Value())
			d.record = bytes.Clone(d.record)
			f(at, binary.BigEndian.Uint32(it.Key()[9:]), d)
		}
	}
	err = b.scratch.each(ctx, spaceEvent, func(key []byte, _ uint64, value []byte) error {
		if len(key) != eventKeyLen {
			b.result.BadRecords++
			return nil
		}
		seq := binary.BigEndian.Uint64(key[1:])
		r, err := decodeEvent(value)
		if err != nil {
			b.result.BadRecords++
			return nil //nolint:nilerr // its deliveries are counted as lost with the next event's
		}
		deliveries := make(map[uint32]found)
		upTo(seq, func(at uint64, index uint32, d found) {
			if at == seq && int64(index) < int64(len(r.routes)) {
				deliveries[index] = d
			} else {
				b.result.Lost++
			}
		})
		return b.event(seq, r, value, deliveries)
	})
	if err != nil {
		return err
	}
	upTo(math.MaxUint64, func(uint64, uint32, found) { b.result.Lost++ })
	return it.Error()
}

// event writes one event with its deliveries. Where some of them are missing that
// nobody can say are settled, all that were not found are taken for pending.
func (b *rebuilder) event(seq uint64, r eventRecord, record []byte, deliveries map[uint32]found) error {
	left, known, err := b.scratch.left(seq)
	if err != nil {
		return err
	}
	if !known {
		left = len(r.routes)
	}
	if len(deliveries) < max(left, 1) {
		for i := range r.routes {
			if _, ok := deliveries[uint32(i)]; !ok {
				deliveries[uint32(i)] = found{space: spaceFresh, record: appendDelivery(nil, deliveryRecord{since: r.event.Accepted})}
				b.result.Assumed++
			}
		}
	}
	b.state.nextSeq = max(b.state.nextSeq, seq+1)
	b.state.bytes += int64(eventKeyLen + len(record))
	b.result.Events++
	if err := b.set(appendEventKey(nil, seq), record); err != nil {
		return err
	}
	if n := len(deliveries); n < len(r.routes) {
		value := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(n))
		if err := b.set(appendLeftKey(nil, seq), value); err != nil {
			return err
		}
	}
	for i := range r.routes {
		d, ok := deliveries[uint32(i)]
		if !ok {
			continue
		}
		if err := b.delivery(position{at: d.at, seq: seq, index: uint32(i)}, r, len(record), d); err != nil {
			return err
		}
	}
	return nil
}

// delivery writes one delivery to where it was found. Those that waited behind
// another one of their order key go back to where they came from: the queue parks
// them again.
func (b *rebuilder) delivery(pos position, r eventRecord, eventLen int, f found) error {
	d, err := decodeDelivery(f.record)
	if err != nil {
		return err // it was decoded before
	}
	id, s := b.sinkOf(r.routes[pos.index], f.sink)
	c := &s.record.counts
	d.eventLen = eventLen
	total := b.result.Sinks[s.name]
	defer func() { b.result.Sinks[s.name] = total }()
	switch {
	case f.space == spaceDead:
		total.DeadLetters++
		value := appendDelivery(nil, d)
		size := int64(deadKeyLen + len(value))
		c.dead++
		c.deadBytes += size + int64(eventLen)
		b.state.bytes += size
		s.record.dead = earlier(s.record.dead, pos)
		place := appendUint(appendUint(nil, 1, uint64(id)), 2, protowire.EncodeZigZag(pos.at))
		return cmp.Or(
			b.set(appendTimedKey(nil, spaceDead, id, pos), value),
			b.set(appendDeadEventKey(nil, r.event.ID, pos.seq, pos.index), place),
		)
	case f.space == spaceDelayed && !s.heads[d.order]:
		total.Delayed++
		if d.order != 0 { // it is the first of its key: events come in their order
			s.heads[d.order] = true
			c.chains++
			if err := b.set(appendChainKey(nil, id, d.order), appendChain(nil, chainRecord{n: 1})); err != nil {
				return err
			}
		}
		value := appendDelivery(nil, d)
		c.delayed++
		b.count(c, int64(2*timedKeyLen+len(value)), eventLen)
		age := position{at: nanos(d.since), seq: pos.seq, index: pos.index}
		s.record.delayed, s.record.age = earlier(s.record.delayed, pos), earlier(s.record.age, age)
		return cmp.Or(
			b.set(appendTimedKey(nil, spaceDelayed, id, pos), value),
			b.set(appendTimedKey(nil, spaceDelayedAge, id, age), nil),
		)
	}
	total.Pending++
	value := appendDelivery(nil, deliveryRecord{since: d.since, eventLen: eventLen})
	c.fresh++
	b.count(c, int64(freshKeyLen+len(value)), eventLen)
	pos.at = 0
	s.record.fresh = earlier(s.record.fresh, pos)
	return b.set(appendFreshKey(nil, id, pos), value)
}

// count adds what is kept for a delivery that is not settled.
func (b *rebuilder) count(c *counts, size int64, eventLen int) {
	c.bytes += size + int64(eventLen)
	b.state.bytes += size
}

// onces writes the keys of callbacks that are kept once.
func (b *rebuilder) onces(ctx context.Context) error {
	return b.scratch.each(ctx, spaceOnce, func(key []byte, _ uint64, value []byte) error {
		if len(key) != 1+onceHashLen || len(value) != onceValueLen {
			b.result.BadRecords++
			return nil
		}
		until := int64(binary.BigEndian.Uint64(value[16:]))
		if until <= nanos(b.now) {
			return nil
		}
		b.result.Keys++
		b.state.bytes += onceKeyLen + onceValueLen
		b.state.once = min(b.state.once, until)
		return cmp.Or(
			b.set(key, value),
			b.set(appendOnceTimeKey(nil, until, [onceHashLen]byte(key[1:])), nil),
		)
	})
}

// notes writes the notes.
func (b *rebuilder) notes(ctx context.Context) error {
	return b.scratch.each(ctx, spaceNote, func(key []byte, _ uint64, value []byte) error {
		b.result.Notes++
		return b.set(key, value)
	})
}

// finish writes what was counted.
func (b *rebuilder) finish() error {
	for id, s := range b.sinks {
		c := &s.record.counts
		if c.fresh == 0 {
			s.record.fresh = position{seq: b.state.nextSeq}
		}
		if err := b.set(appendSinkKey(nil, spaceName, id), appendString(nil, 1, s.name)); err != nil {
			return err
		}
		if err := b.set(appendSinkKey(nil, spaceSink, id), appendSink(nil, s.record)); err != nil {
			return err
		}
	}
	if err := b.set(keyCounters(), appendStore(nil, b.state)); err != nil {
		return err
	}
	return b.batch.Commit(pebble.Sync)
}

func (b *rebuilder) set(key, value []byte) error {
	if err := b.batch.Set(key, value, nil); err != nil || b.batch.Len() < scratchBatch {
		return err
	}
	if err := b.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	if err := b.batch.Close(); err != nil {
		return err
	}
	b.batch = b.store.NewBatch()
	return nil
}
