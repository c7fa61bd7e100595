package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

// maxDeadEdit bounds what one Redrive or Discard commits at once; more are done
// in several commits.
const maxDeadEdit = 512

// maxDeadBytes bounds the events that one commit reads because it changes or removes
// dead letters; the last one may exceed it. Others wait for that commit.
const maxDeadBytes = 8 << 20

// pruneMost is how many dead letters a commit removes at most because there are
// too many bytes of them.
const pruneMost = 256

// bury makes a dead letter of d, which is in none of the other spaces any more.
func (c *committer) bury(b *pebble.Batch, s *sink, ch *changes, d *delivery, death event.Death, attempts int, now time.Time) error {
	record := appendDelivery(c.value[:0], deliveryRecord{
		since: d.since, attempts: attempts, err: cut(death.Error), reason: death.Reason, eventLen: d.eventLen,
	})
	ch.counts.dead++
	ch.counts.bytes -= int64(d.eventLen)
	ch.counts.deadBytes += int64(d.eventLen + deadKeyLen + len(record))
	c.state.bytes += int64(deadKeyLen + len(record))
	pos := position{at: dueNanos(now), seq: d.pos.seq, index: d.pos.index}
	ch.dead, ch.buried = earlier(ch.dead, pos), earlier(ch.buried, pos)
	if err := c.set(b, appendTimedKey(c.key[:0], spaceDead, s.id, pos), record); err != nil {
		return err
	}
	value := appendUint(appendUint(c.value[:0], 1, uint64(s.id)), 2, protowire.EncodeZigZag(pos.at))
	return c.set(b, appendDeadEventKey(c.key[:0], d.event.ID, pos.seq, pos.index), value)
}

// letter reads what is kept of a dead letter. d is nil where there is none.
func (c *committer) letter(s *sink, pos position) (d *delivery, err error) {
	c.key = appendTimedKey(c.key[:0], spaceDead, s.id, pos)
	v, closer, err := c.q.store.Get(c.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := decodeDelivery(v)
	d = &delivery{pos: pos, since: r.since, recLen: len(v), eventLen: r.eventLen}
	if err = errors.Join(err, closer.Close()); err != nil {
		return nil, damaged(err)
	}
	return d, nil
}

// unbury removes a dead letter, whose event is kept. d is nil where there is none.
func (c *committer) unbury(b *pebble.Batch, s *sink, ch *changes, pos position) (d *delivery, err error) {
	if d, err = c.letter(s, pos); d == nil || err != nil {
		return nil, err
	}
	if err := loadEvent(c.q.store, d); err != nil {
		return nil, err
	}
	ch.counts.dead--
	ch.counts.deadBytes -= int64(d.eventLen + deadKeyLen + d.recLen)
	c.state.bytes -= int64(deadKeyLen + d.recLen)
	if pos == ch.dead {
		ch.dead = pos.after()
	}
	if ch.counts.dead == 0 {
		ch.dead = lastPosition()
	}
	c.key = appendTimedKey(c.key[:0], spaceDead, s.id, pos)
	if err := b.Delete(c.key, nil); err != nil {
		return nil, err
	}
	c.key = appendDeadEventKey(c.key[:0], d.event.ID, pos.seq, pos.index)
	return d, b.Delete(c.key, nil)
}

// prune removes the oldest dead letters of the sinks that the batch changes, where
// there are too many bytes of them. It cannot see those of the batch itself.
func (c *committer) prune(b *pebble.Batch) error {
	for s, ch := range c.changed {
		bounds := s.bounds.Load()
		if bounds == nil || !tooManyDead(bounds, ch) {
			continue
		}
		_, err := c.discardOldest(b, s, pruneMost, func(ch *changes, _ int64) (remove, aged bool) { return tooManyDead(bounds, ch), false })
		if err != nil {
			return err
		}
	}
	return nil
}

func tooManyDead(bounds *Limits, ch *changes) bool {
	return bounds.DeadMaxBytes > 0 && ch.counts.deadBytes > bounds.DeadMaxBytes
}

// discardOldest removes the oldest dead letters of a sink, while want says so and
// up to a number of them, and tells whether there may be more.
func (c *committer) discardOldest(b *pebble.Batch, s *sink, most int, want func(ch *changes, died int64) (remove, aged bool)) (more bool, err error) {
	ch := c.changesOf(s)
	if s.id == 0 || ch.dead == lastPosition() {
		return false, nil
	}
	it, err := c.q.store.NewIter(&pebble.IterOptions{
		LowerBound: appendTimedKey(nil, spaceDead, s.id, ch.dead),
		UpperBound: appendSinkKey(nil, spaceDead, s.id+1),
	})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	n, size := 0, 0
	for ok := it.First(); ok; ok = it.Next() {
		pos, err := parseTimedKey(it.Key(), spaceDead)
		if err != nil {
			return false, damaged(err)
		}
		ch.dead = earlier(pos, ch.buried) // what is before pos is gone, whoever removed it
		remove, aged := want(ch, pos.at)
		if !remove {
			return false, nil
		}
		if n >= most || size >= maxDeadBytes {
			return true, nil
		}
		d, err := c.unbury(b, s, ch, pos)
		if err != nil {
			return false, err
		}
		if err := c.release(b, d); err != nil {
			return false, err
		}
		if ch.counts.dead > 0 {
			ch.dead = earlier(pos.after(), ch.buried)
		}
		c.told.discarded(s.name, aged)
		n++
		size += d.eventLen
	}
	return false, it.Error()
}

// Redrive implements Queue.
func (q *Embedded) Redrive(ctx context.Context, letters []DeadKey) (found int, err error) {
	return q.editDead(ctx, letters, func(c *committer, b *pebble.Batch, s *sink, pos position, now time.Time) (*delivery, error) {
		ch := c.changesOf(s)
		d, err := c.letter(s, pos)
		if d == nil || err != nil {
			return nil, err
		}
		again := &delivery{
			pos:   position{at: dueNanos(now), seq: pos.seq, index: pos.index},
			since: now, eventLen: d.eventLen,
		}
		if bounds := s.bounds.Load(); bounds != nil && bounds.MaxBacklog > 0 && ch.counts.bytes+again.backlog() > bounds.MaxBacklog {
			c.room.backlogFull(s.name, "redrive", bounds.MaxBacklog, now)
			return nil, errNoRoom
		}
		if _, err := c.unbury(b, s, ch, pos); err != nil {
			return nil, err
		}
		ch.counts.bytes += int64(d.eventLen)
		return d, c.addDelayed(b, s, ch, again, "")
	})
}

// backlog is what d, redriven, takes of the backlog of
// its sink as one that is to be tried again.
func (d *delivery) backlog() int64 {
	record := appendDelivery(nil, deliveryRecord{since: d.since, eventLen: d.eventLen})
	return int64(2*timedKeyLen + len(record) + d.eventLen)
}

// Discard implements Queue.
func (q *Embedded) Discard(ctx context.Context, letters []DeadKey) (found int, err error) {
	return q.editDead(ctx, letters, func(c *committer, b *pebble.Batch, s *sink, pos position, _ time.Time) (*delivery, error) {
		d, err := c.unbury(b, s, c.changesOf(s), pos)
		if d == nil || err != nil {
			return nil, err
		}
		return d, c.release(b, d)
	})
}

// errNoRoom ends an editDead before a dead letter.
var errNoRoom = errors.New("no room")

// editDead calls do with each of the dead letters, each once in a commit, until it
// says errNoRoom, and counts those that it found: do returns them.
func (q *Embedded) editDead(ctx context.Context, letters []DeadKey,
	do func(c *committer, b *pebble.Batch, s *sink, pos position, now time.Time) (*delivery, error),
) (found int, err error) {
	for len(letters) > 0 {
		done, n, full := 0, 0, false
		err := q.edit(ctx, func(c *committer, b *pebble.Batch, now time.Time) error {
			seen := make(map[DeadKey]bool)
			for size := 0; done < min(len(letters), maxDeadEdit) && size < maxDeadBytes; done++ {
				k := letters[done]
				s := q.knownSink(k.Sink)
				if s == nil || s.id == 0 || seen[k] {
					continue
				}
				seen[k] = true
				d, err := do(c, b, s, k.position(), now)
				if errors.Is(err, errNoRoom) {
					full = true
					return nil
				}
				if err != nil {
					return err
				}
				if d != nil {
					size += d.eventLen
					n++
				}
			}
			return nil
		})
		if err != nil {
			return found, err
		}
		found += n
		if full {
			break
		}
		letters = letters[done:]
	}
	return found, nil
}

func (k DeadKey) position() position { return position{at: k.Died, seq: k.Seq, index: k.Index} }

// DeadLetter implements Queue.
func (q *Embedded) DeadLetter(ctx context.Context, id string) (DeadLetter, error) {
	if err := errors.Join(ctx.Err(), q.usable()); err != nil {
		return DeadLetter{}, err
	}
	unknown := fmt.Errorf("%w: %q", ErrUnknown, id)
	if len(id) <= ulid.EncodedSize {
		return DeadLetter{}, unknown
	}
	eventID, err := ulid.ParseStrict(id[:ulid.EncodedSize])
	if err != nil {
		return DeadLetter{}, unknown
	}
	var letter DeadLetter
	err = q.reading(func() (err error) {
		snapshot := q.store.NewSnapshot()
		defer func() { err = errors.Join(err, snapshot.Close()) }()
		// After the snapshot: each sink in it has its number by now.
		sinks := make(map[uint32]*sink)
		for _, s := range q.allSinks() {
			s.mu.Lock()
			sinks[s.id] = s
			s.mu.Unlock()
		}
		it, err := snapshot.NewIter(&pebble.IterOptions{
			LowerBound: appendDeadEventKey(nil, eventID, 0, 0),
			UpperBound: appendDeadEventKey(nil, eventID, math.MaxUint64, math.MaxUint32),
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		for ok := it.First(); ok; ok = it.Next() {
			k := it.Key()
			if len(k) != 1+16+8+4 {
				return damaged(fmt.Errorf("key %x is not one of space %q", k, spaceDeadEvent))
			}
			pos := position{seq: binary.BigEndian.Uint64(k[17:]), index: binary.BigEndian.Uint32(k[25:])}
			var number uint32
			if number, pos.at, err = decodeDeadEvent(it.Value()); err != nil {
				return damaged(err)
			}
			s := sinks[number]
			if s == nil {
				return damaged(fmt.Errorf("sink %d has no name", number))
			}
			v, closer, err := snapshot.Get(appendTimedKey(nil, spaceDead, number, pos))
			if err != nil {
				return err
			}
			found, _, err := deadLetter(snapshot, s.name, pos, v)
			if err = errors.Join(err, closer.Close()); err != nil {
				return err
			}
			if found.ID == id {
				letter = found
				return nil
			}
		}
		return it.Error()
	})
	switch {
	case err != nil:
		return DeadLetter{}, err
	case letter.ID == "":
		return DeadLetter{}, unknown
	}
	return letter, nil
}

func decodeDeadEvent(b []byte) (sink uint32, at int64, err error) {
	err = eachField(b, func(f field) (err error) {
		var n uint64
		switch f.num {
		case 1:
			n, err = f.asUint(math.MaxUint32)
			sink = uint32(n)
		case 2:
			n, err = f.asUint(math.MaxUint64)
			at = protowire.DecodeZigZag(n)
		}
		return err
	})
	if err != nil {
		err = fmt.Errorf("place of a dead letter: %w", err)
	}
	return sink, at, err
}
