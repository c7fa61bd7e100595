package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
)

// deadPage bounds what DeadLetters reads at once: f may take its time, and what
// is being read keeps files of the store from being deleted.
const (
	deadPageLetters = 128
	deadPageBytes   = 4 << 20
	deadPageScanned = 4096
)

// DeadLetters implements Queue.
func (q *Embedded) DeadLetters(ctx context.Context, filter Filter, f func(DeadLetter) bool) error {
	if err := q.usable(); err != nil {
		return err
	}
	var sinks []*sink
	if filter.Sink == "" {
		for _, s := range q.allSinks() {
			sinks = append(sinks, s)
		}
	} else if s := q.knownSink(filter.Sink); s != nil {
		sinks = append(sinks, s)
	}
	from := filter.start()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var page []DeadLetter
		var more bool
		err := q.reading(func() (err error) {
			page, from, more, err = q.readDead(sinks, filter, from)
			return err
		})
		if err != nil {
			return err
		}
		for _, letter := range page {
			if !f(letter) {
				return nil
			}
		}
		if !more {
			return nil
		}
	}
}

// start is the first position that the filter lets through.
func (f *Filter) start() position {
	from := position{}
	if !f.From.IsZero() {
		from.at = nanos(f.From)
	}
	if f.After != (DeadKey{}) {
		if after := f.After.position().after(); from.less(after) {
			from = after
		}
	}
	return from
}

// passes tells whether the filter lets a dead letter through, as far as its record
// shows.
func (f *Filter) passes(r deliveryRecord) bool { return f.Reason == "" || f.Reason == r.reason }

// passesEvent is about what its event shows.
func (f *Filter) passesEvent(l *DeadLetter) bool {
	return (f.Pipeline == "" || f.Pipeline == l.Pipeline) && (f.Type == "" || f.Type == l.Event.Type)
}

// deadCursor goes through the dead letters of a sink.
type deadCursor struct {
	sink *sink
	it   *pebble.Iterator
	pos  position
}

// step sets pos after the iterator was moved; false at the end.
func (c *deadCursor) step(ok bool) (bool, error) {
	if !ok {
		return false, c.it.Error()
	}
	var err error
	if c.pos, err = parseTimedKey(c.it.Key(), spaceDead); err != nil {
		return false, damaged(err)
	}
	return true, nil
}

// readDead reads a page from a position on, oldest first over all sinks.
func (q *Embedded) readDead(sinks []*sink, filter Filter, from position) (page []DeadLetter, next position, more bool, err error) {
	// What is removed meanwhile takes its event with it.
	snapshot := q.store.NewSnapshot()
	var cursors []*deadCursor
	defer func() {
		for _, c := range cursors {
			err = errors.Join(err, c.it.Close())
		}
		err = errors.Join(err, snapshot.Close())
	}()
	live := make([]*deadCursor, 0, len(sinks))
	for _, s := range sinks {
		s.mu.Lock()
		id, first := s.id, s.deadMark
		s.mu.Unlock()
		if id == 0 {
			continue
		}
		if first.less(from) {
			first = from
		}
		it, err := snapshot.NewIter(&pebble.IterOptions{
			LowerBound: appendTimedKey(nil, spaceDead, id, first),
			UpperBound: appendSinkKey(nil, spaceDead, id+1),
		})
		if err != nil {
			return nil, next, false, err
		}
		c := &deadCursor{sink: s, it: it}
		cursors = append(cursors, c)
		ok, err := c.step(it.First())
		if err != nil {
			return nil, next, false, err
		}
		if ok {
			live = append(live, c)
		}
	}
	for size, scanned := 0, 0; len(live) > 0; scanned++ {
		c := slices.MinFunc(live, func(a, b *deadCursor) int {
			return cmp.Or(cmp.Compare(a.pos.at, b.pos.at), cmp.Compare(a.pos.seq, b.pos.seq), cmp.Compare(a.pos.index, b.pos.index))
		})
		if !filter.Until.IsZero() && c.pos.at >= nanos(filter.Until) {
			break
		}
		if len(page) >= deadPageLetters || size >= deadPageBytes || scanned >= deadPageScanned {
			return page, c.pos, true, nil
		}
		r, err := decodeDelivery(c.it.Value())
		if err != nil {
			return nil, next, false, damaged(fmt.Errorf("dead letter %x: %w", c.it.Key(), err))
		}
		if filter.passes(r) {
			letter, n, err := deadLetter(snapshot, c.sink.name, c.pos, c.it.Value())
			if err != nil {
				return nil, next, false, err
			}
			size += n
			if filter.passesEvent(&letter) {
				page = append(page, letter)
			}
		}
		ok, err := c.step(c.it.Next())
		if err != nil {
			return nil, next, false, err
		}
		if !ok {
			live = slices.DeleteFunc(live, func(o *deadCursor) bool { return o == c })
		}
	}
	return page, next, false, nil
}

// deadLetter makes the dead letter of a record, and tells its size.
func deadLetter(store pebble.Reader, sink string, pos position, record []byte) (DeadLetter, int, error) {
	r, err := decodeDelivery(record)
	if err != nil {
		return DeadLetter{}, 0, damaged(fmt.Errorf("dead letter of sink %s: %w", sink, err))
	}
	d := &delivery{pos: pos}
	if err := loadEvent(store, d); err != nil {
		return DeadLetter{}, 0, err
	}
	ev := d.event
	return DeadLetter{
		Key:      DeadKey{Sink: sink, Died: pos.at, Seq: pos.seq, Index: pos.index},
		ID:       event.DeliveryID(ev.ID, d.pipeline, sink),
		EventID:  ev.ID,
		Event:    ev,
		Pipeline: d.pipeline,
		Sink:     sink,
		Death:    event.Death{Reason: r.reason, Error: r.err},
		Attempts: r.attempts,
		Accepted: ev.Accepted,
		Died:     time.Unix(0, pos.at).UTC(),
	}, d.eventLen + len(r.err), nil
}
