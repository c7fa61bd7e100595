package queue

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// maxOverdraft is how many times its own size a delivery frees at most. More is to
// be freed only where the limit of the backlog was lowered, or where what is tried
// again has grown; that goes little by little, not in one long commit.
const maxOverdraft = 4

// dropFor drops the oldest deliveries of a sink for a new one of a size, which would
// exceed the backlog by over, and tells whether there is room then.
func (c *committer) dropFor(b *pebble.Batch, s *sink, ch *changes, size, over int64, now time.Time) (bool, error) {
	if over >= ch.counts.bytes {
		return false, nil // it would take all others with it for nothing
	}
	freed, err := c.dropOldest(b, s, ch, min(over, maxOverdraft*size), now)
	return freed >= min(over, size), err
}

// dropOldest drops the oldest deliveries of a sink until so many bytes of its
// backlog are freed, and returns how many are.
func (c *committer) dropOldest(b *pebble.Batch, s *sink, ch *changes, need int64, now time.Time) (freed int64, err error) {
	for freed < need {
		before := ch.counts.bytes
		var row parkedRow
		if ch.counts.parked > 0 {
			if row, err = c.findParked(s); err != nil {
				return freed, err
			}
		}
		s.mu.Lock()
		d, next := s.dropFirst(row.d)
		s.mu.Unlock()
		switch next {
		case dropNothing:
			return freed, nil
		case dropFreshOnDisk:
			// What the batch changes of their order keys, publish will tell them.
			err = c.q.refillFresh(s)
		case dropDelayedOnDisk:
			err = c.q.refillDelayed(s, lastPosition)
		case dropParked:
			err = c.dropParked(b, s, ch, row)
		case dropThis:
			if d.event == nil {
				err = loadEvent(c.q.store, d)
			}
			if err == nil {
				err = c.settle(b, &move{sink: s, d: d, dropped: true}, now)
			}
		}
		if err != nil {
			return freed, err
		}
		if n := before - ch.counts.bytes; n > 0 {
			freed += n
			c.told.dropped(s.name)
		}
	}
	return freed, nil
}

// toDrop says where the oldest delivery that can be dropped is.
type toDrop uint8

const (
	dropNothing toDrop = iota
	dropThis           // in memory
	dropFreshOnDisk
	dropParked
	dropDelayedOnDisk
)

// dropFirst takes out the oldest that can be dropped and marks it as settling,
// where it is in memory: those never tried first. parked is a candidate that waits
// behind another one, or nil. The caller holds mu.
func (s *sink) dropFirst(parked *delivery) (d *delivery, next toDrop) {
	first, aside := s.firstFresh(), s.aside.first()
	delayed, suspect := s.delayed.first(), s.suspects.first()
	older := func(d *delivery) bool { return d == nil || parked.pos.less(d.pos) }
	switch {
	case parked != nil && older(first) && older(aside) && (s.freshAll || parked.pos.less(s.freshNext)):
		return nil, dropParked
	case aside != nil && (first == nil || aside.pos.less(first.pos)):
		d = aside
		s.dropAside(d)
		s.held[d.key()] = d
	case first != nil:
		d = s.popFresh()
		if d.order != 0 {
			c := s.chains[d.order]
			c.inWindow--
			s.unlink(c)
		}
		s.held[d.key()] = d
	case !s.freshAll:
		return nil, dropFreshOnDisk
	case suspect != nil && (delayed == nil || suspect.pos.less(delayed.pos)):
		d = s.suspects.pop()
	case delayed != nil:
		d = s.delayed.pop()
	case s.delayedNext != lastPosition():
		return nil, dropDelayedOnDisk
	default:
		return nil, dropNothing
	}
	s.taken(d).push(d)
	d.state = settling
	return d, dropThis
}

func (s *sink) dropAside(d *delivery) {
	s.unaside(d)
	c := s.chains[d.order]
	if d.state == eligible {
		s.eligible.remove(d)
		return // it is the head of its key until it is settled
	}
	i := slices.Index(c.behind, d)
	c.behind = slices.Delete(c.behind, i, i+1)
	s.unlink(c)
}

// parkedRow is where a delivery waits behind another one of its order key, which is
// to be tried again. size is that of its record.
type parkedRow struct {
	order uint64
	d     *delivery
	size  int
}

// dropParked drops what findParked has found.
func (c *committer) dropParked(b *pebble.Batch, s *sink, ch *changes, row parkedRow) error {
	d := row.d
	if err := loadEvent(c.q.store, d); err != nil {
		return err
	}
	r, err := c.chainOf(s, row.order)
	if err != nil {
		return err
	}
	ch.counts.parked--
	ch.counts.bytes -= int64(d.eventLen)
	c.count(ch, -int64(timedKeyLen+row.size))
	c.key = appendParkedKey(c.key[:0], s.id, row.order, d.pos)
	if err := b.Delete(c.key, nil); err != nil {
		return err
	}
	r.n--
	r.from = d.pos.after()
	if err := c.setChain(b, s, row.order, r); err != nil {
		return err
	}
	c.parkedFrom[s] = append(c.parkedFrom[s][:0], appendParkedKey(c.key[:0], s.id, row.order, r.from)...)
	return c.release(b, d)
}

// findParked finds the next one of those parked to be dropped: the oldest of some
// key. It goes on from the last one, since the store remembers for a while what was
// deleted before.
func (c *committer) findParked(s *sink) (row parkedRow, err error) {
	it, err := c.q.store.NewIter(&pebble.IterOptions{
		LowerBound: appendSinkKey(nil, spaceParked, s.id), UpperBound: appendSinkKey(nil, spaceParked, s.id+1),
	})
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	again := false
	for ok := it.SeekGE(c.parkedFrom[s]); ; {
		if !ok {
			if err := it.Error(); err != nil {
				return row, err
			}
			if again {
				return row, damaged(fmt.Errorf("sink %s has lost deliveries that wait for others", s.name))
			}
			again = true
			ok = it.First()
			continue
		}
		if row.order, row.d, row.size, err = parseParked(it); err != nil {
			return row, err
		}
		r, err := c.chainOf(s, row.order)
		if err != nil {
			return row, err
		}
		if !row.d.pos.less(r.from) {
			return row, nil
		}
		ok = it.SeekGE(appendParkedKey(nil, s.id, row.order, r.from)) // the batch removes what is before
	}
}
