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
)

// DeadLetters implements Queue.
func (q *Embedded) DeadLetters(ctx context.Context, sinkName string, f func(DeadLetter) bool) error {
	if err := q.usable(); err != nil {
		return err
	}
	var sinks []*sink
	if sinkName == "" {
		for _, s := range q.allSinks() {
			sinks = append(sinks, s)
		}
	} else if s := q.knownSink(sinkName); s != nil {
		sinks = append(sinks, s)
	}
	from := position{}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var page []DeadLetter
		var more bool
		err := q.reading(func() (err error) {
			page, from, more, err = q.readDead(sinks, from)
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
func (q *Embedded) readDead(sinks []*sink, from position) (page []DeadLetter, next position, more bool, err error) {
	var cursors []*deadCursor
	defer func() {
		for _, c := range cursors {
			err = errors.Join(err, c.it.Close())
		}
	}()
	live := make([]*deadCursor, 0, len(sinks))
	for _, s := range sinks {
		s.mu.Lock()
		id := s.id
		s.mu.Unlock()
		if id == 0 {
			continue
		}
		it, err := q.store.NewIter(&pebble.IterOptions{
			LowerBound: appendTimedKey(nil, spaceDead, id, from),
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
	for size := 0; len(live) > 0; {
		c := slices.MinFunc(live, func(a, b *deadCursor) int {
			return cmp.Or(cmp.Compare(a.pos.at, b.pos.at), cmp.Compare(a.pos.seq, b.pos.seq), cmp.Compare(a.pos.index, b.pos.index))
		})
		if len(page) >= deadPageLetters || size >= deadPageBytes {
			return page, c.pos, true, nil
		}
		letter, n, err := q.deadLetter(c)
		if err != nil {
			return nil, next, false, err
		}
		page, size = append(page, letter), size+n
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

// deadLetter reads the dead letter at c, and tells its size.
func (q *Embedded) deadLetter(c *deadCursor) (DeadLetter, int, error) {
	r, err := decodeDelivery(c.it.Value())
	if err != nil {
		return DeadLetter{}, 0, damaged(fmt.Errorf("dead letter %x: %w", c.it.Key(), err))
	}
	d := &delivery{pos: c.pos}
	if err := q.loadEvent(d); err != nil {
		return DeadLetter{}, 0, err
	}
	ev := d.event
	return DeadLetter{
		ID:       event.DeliveryID(ev.ID, d.pipeline, c.sink.name),
		EventID:  ev.ID,
		Event:    ev,
		Pipeline: d.pipeline,
		Sink:     c.sink.name,
		Death:    event.Death{Reason: r.reason, Error: r.err},
		Attempts: r.attempts,
		Accepted: ev.Accepted,
		Died:     time.Unix(0, c.pos.at).UTC(),
	}, d.eventLen + len(r.err), nil
}
