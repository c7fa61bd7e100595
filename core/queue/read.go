package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// How much a taker reads from the store at once.
const (
	readEvents = 1024
	readBytes  = 2 << 20
)

// reading runs f, which reads from the store. An error of the store, or a record
// that cannot be read, fails the queue. Where the queue fails otherwise meanwhile, it
// does not wait for f: a goroutine of Pebble that met the failure goes no further, and
// what it has locked stays locked. So after an error nobody may use what f sets, and
// f must not change what others use once the queue has failed.
func (q *Embedded) reading(f func() error) error {
	if !q.readers.enter() {
		return ErrClosed
	}
	done := make(chan error, 1)
	go func() {
		defer q.readers.leave()
		done <- q.health.guard(f)
	}()
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
		if failed := q.health.error(); failed != nil {
			return failed
		}
		q.health.fail(fmt.Errorf("queue %s: %w", q.options.Dir, err))
	case <-q.health.failed:
	}
	return q.health.error()
}

// refill reads what comes next for s. The caller has set s.reading.
func (q *Embedded) refill(s *sink, fresh, delayed, park bool) error {
	if park {
		if err := q.park(s); err != nil {
			return err
		}
	}
	return q.reading(func() error {
		if fresh {
			if err := q.refillFresh(s); err != nil {
				return err
			}
		}
		if delayed {
			return q.refillDelayed(s, func() position { return s.readCeiling })
		}
		return nil
	})
}

func (q *Embedded) refillFresh(s *sink) error {
	s.mu.Lock()
	from, to := s.freshNext, s.published
	s.mu.Unlock()
	p, err := q.readFresh(s, from, to, min(readEvents, s.limits.events), min(readBytes, s.limits.bytes))
	if err != nil {
		return err
	}
	if err := q.readChains(s, p.deliveries); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := q.health.error(); err != nil {
		return err // nobody waits for it, see reading: s.reading is not about it any more
	}
	s.tookFresh(p.deliveries, from, p.next, p.since)
	return nil
}

// readChains finds out which of ds, never tried, have another one of their order
// key before them that is to be tried again. What the committer changes meanwhile
// is in s.readChains.
func (q *Embedded) readChains(s *sink, ds []*delivery) error {
	s.mu.Lock()
	none := s.counts.chains == 0 && len(s.readChains) == 0
	s.mu.Unlock()
	if none {
		return nil
	}
	for _, d := range ds {
		if d.order == 0 {
			continue
		}
		r, err := q.store.chain(s.id, d.order)
		if err != nil {
			return err
		}
		d.blocked = r.n > 0
	}
	return nil
}

// refillDelayed reads those to be tried again. ceiling is asked for under the mutex of
// s: the first position that was added meanwhile.
func (q *Embedded) refillDelayed(s *sink, ceiling func() position) error {
	s.mu.Lock()
	from, moves := s.delayedNext, s.delayedMoves
	s.mu.Unlock()
	ds, next, err := q.readDelayed(s, from, min(readEvents, s.limits.events))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := q.health.error(); err != nil {
		return err // as in refillFresh
	}
	s.tookDelayed(ds, moves, earlier(next, ceiling()))
	return nil
}

// freshPage is a part of the deliveries never tried.
type freshPage struct {
	deliveries []*delivery
	next       position  // of the delivery after them, or the end that was asked for
	since      time.Time // of the delivery at next
}

// readFresh reads deliveries with their events, from a position on, up to one.
func (q *Embedded) readFresh(s *sink, from, to position, maxEvents, maxBytes int) (p freshPage, err error) {
	it, err := q.store.NewIter(&pebble.IterOptions{
		LowerBound: appendFreshKey(nil, s.id, from),
		UpperBound: appendFreshKey(nil, s.id, to),
	})
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	events := eventReader{of: it}
	defer func() { err = errors.Join(err, events.close()) }()

	size := 0
	for ok := it.First(); ok; ok = it.Next() {
		pos, err := parseFreshKey(it.Key())
		if err != nil {
			return p, damaged(err)
		}
		r, err := decodeDelivery(it.Value())
		if err != nil {
			return p, damaged(err)
		}
		n := len(p.deliveries)
		if n >= maxEvents || (n > 0 && size+r.eventLen > maxBytes) {
			p.next, p.since = pos, r.since
			return p, nil
		}
		d := &delivery{pos: pos, since: r.since, recLen: len(it.Value())}
		if err := events.read(d); err != nil {
			return p, err
		}
		size += d.eventLen
		p.deliveries = append(p.deliveries, d)
	}
	p.next = to
	return p, it.Error()
}

// eventReader reads the events of deliveries in ascending order, as they are in
// the store that another iterator sees: those of what is dropped meanwhile, too.
type eventReader struct {
	of, it *pebble.Iterator
	key    []byte
	seq    uint64 // of last
	last   eventRecord
	size   int
}

func (r *eventReader) read(d *delivery) error {
	if r.last.event == nil || r.seq != d.pos.seq {
		if err := r.seek(d.pos.seq); err != nil {
			return err
		}
	}
	return d.setEvent(r.last, r.size)
}

func (r *eventReader) seek(seq uint64) (err error) {
	if r.it == nil {
		r.it, err = r.of.Clone(pebble.CloneOptions{IterOptions: &pebble.IterOptions{
			LowerBound: []byte{spaceEvent}, UpperBound: []byte{spaceEvent + 1},
		}})
		if err != nil {
			return err
		}
	}
	r.key = appendEventKey(r.key[:0], seq)
	if !r.it.SeekGE(r.key) || !bytes.Equal(r.it.Key(), r.key) {
		if err := r.it.Error(); err != nil {
			return err
		}
		return damaged(fmt.Errorf("event %d is missing", seq))
	}
	r.seq, r.size = seq, len(r.it.Value())
	r.last, err = decodeEvent(r.it.Value())
	if err != nil {
		return damaged(fmt.Errorf("event %d: %w", seq, err))
	}
	return nil
}

func (r *eventReader) close() error {
	if r.it == nil {
		return nil
	}
	return r.it.Close()
}

// setEvent gives d its event.
func (d *delivery) setEvent(r eventRecord, size int) error {
	if int64(d.pos.index) >= int64(len(r.routes)) {
		return damaged(fmt.Errorf("event %d has no route %d", d.pos.seq, d.pos.index))
	}
	d.event, d.eventLen = r.event, size
	d.pipeline, d.routes = r.routes[d.pos.index].pipeline, len(r.routes)
	if d.isFresh() {
		d.order = r.routes[d.pos.index].order
	}
	return nil
}

// readEvent reads the event of a delivery that was taken.
func (q *Embedded) readEvent(d *delivery) error {
	return q.reading(func() error { return loadEvent(q.store, d) })
}

func loadEvent(store pebble.Reader, d *delivery) error {
	v, closer, err := store.Get(appendEventKey(nil, d.pos.seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return damaged(fmt.Errorf("event %d is missing", d.pos.seq))
	}
	if err != nil {
		return err
	}
	r, err := decodeEvent(v)
	size := len(v)
	if err := errors.Join(err, closer.Close()); err != nil {
		return damaged(fmt.Errorf("event %d: %w", d.pos.seq, err))
	}
	return d.setEvent(r, size)
}

// readDelayed reads deliveries that are to be tried again, without their events.
func (q *Embedded) readDelayed(s *sink, from position, limit int) (ds []*delivery, next position, err error) {
	it, err := q.store.NewIter(&pebble.IterOptions{
		LowerBound: appendTimedKey(nil, spaceDelayed, s.id, from),
		UpperBound: appendSinkKey(nil, spaceDelayed, s.id+1),
	})
	if err != nil {
		return nil, next, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		pos, err := parseTimedKey(it.Key(), spaceDelayed)
		if err != nil {
			return nil, next, damaged(err)
		}
		if len(ds) >= limit {
			return ds, pos, nil
		}
		r, err := decodeDelivery(it.Value())
		if err != nil {
			return nil, next, damaged(err)
		}
		ds = append(ds, &delivery{
			pos: pos, since: r.since, attempts: r.attempts, suspicion: r.suspicion, order: r.order,
			recLen: len(it.Value()), eventLen: r.eventLen,
		})
	}
	return ds, lastPosition(), it.Error()
}

// oldestFresh is since when the oldest delivery never tried is pending.
func (s *sink) oldestFresh() time.Time {
	var t time.Time
	first := func(since time.Time) {
		if t.IsZero() || (!since.IsZero() && since.Before(t)) {
			t = since
		}
	}
	if d := s.takenFresh.first(); d != nil {
		first(d.since)
	}
	if d := s.aside.first(); d != nil {
		first(d.since)
	}
	if d := s.firstFresh(); d != nil {
		first(d.since)
	} else if !s.freshAll {
		first(s.freshSince)
	}
	return t
}

// oldestDelayed is since when the oldest delivery that is to be tried again is
// pending. It reads one key, where the one it knew was settled.
func (q *Embedded) oldestDelayed(s *sink) time.Time {
	s.mu.Lock()
	known, from, change := s.oldestKnown, s.oldest, s.oldestChange
	has := s.counts.delayed > 0
	s.mu.Unlock()
	if !has {
		return time.Time{}
	}
	if known {
		return time.Unix(0, from.at).UTC()
	}
	found := lastPosition()
	err := q.reading(func() (err error) {
		it, err := q.store.NewIter(&pebble.IterOptions{
			LowerBound: appendTimedKey(nil, spaceDelayedAge, s.id, from),
			UpperBound: appendSinkKey(nil, spaceDelayedAge, s.id+1),
		})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		if it.First() {
			if found, err = parseTimedKey(it.Key(), spaceDelayedAge); err != nil {
				return damaged(err)
			}
		}
		return it.Error()
	})
	if err != nil || found == lastPosition() {
		return time.Time{}
	}
	s.mu.Lock()
	if s.oldestChange == change {
		s.oldest, s.oldestKnown = found, true
	}
	s.mu.Unlock()
	return time.Unix(0, found.at).UTC()
}

// readNames reads the names of all sinks that something was ever kept for.
func (q *Embedded) readNames() (names map[uint32]string, err error) {
	it, err := q.store.NewIter(&pebble.IterOptions{
		LowerBound: []byte{spaceName}, UpperBound: []byte{spaceName + 1},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	names = make(map[uint32]string)
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) != 1+4 {
			return nil, damaged(fmt.Errorf("key %x is not that of a sink", k))
		}
		name, err := decodeName(it.Value())
		if err != nil {
			return nil, damaged(err)
		}
		names[binary.BigEndian.Uint32(k[1:])] = name
	}
	return names, it.Error()
}
