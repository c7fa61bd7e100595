package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// park lets the committer move deliveries that wait for others of their order key
// out of memory, so that what comes after them can be read.
func (q *Embedded) park(s *sink) error {
	return q.edit(context.Background(), func(c *committer, b *pebble.Batch, now time.Time) error {
		for _, row := range s.park() {
			if err := c.park(b, s, row, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// park moves a row of deliveries behind what is to be tried again. Where that is
// handed out for the first time, it is made one that is.
func (c *committer) park(b *pebble.Batch, s *sink, row toPark, now time.Time) error {
	ch := c.changesOf(s)
	r, err := c.chainOf(s, row.key)
	if err != nil {
		return err
	}
	if row.head != nil {
		if err := c.demote(b, s, ch, row.head, now); err != nil {
			return err
		}
		ch.counts.chains++
		r = chainRecord{n: 1}
	}
	if r.n == 0 {
		return damaged(fmt.Errorf("order key %x of sink %s has no deliveries", row.key, s.name))
	}
	if r.n == 1 {
		r.from = row.ds[0].pos // others that were there once are not to be looked for
	}
	for _, d := range row.ds {
		ch.counts.fresh--
		ch.counts.parked++
		c.count(ch, -int64(freshKeyLen+d.recLen))
		c.key = appendFreshKey(c.key[:0], s.id, d.pos)
		if err := b.SingleDelete(c.key, nil); err != nil {
			return err
		}
		record := appendDelivery(c.value[:0], deliveryRecord{since: d.since, eventLen: d.eventLen})
		c.count(ch, int64(timedKeyLen+len(record)))
		if err := c.set(b, appendParkedKey(c.key[:0], s.id, row.key, d.pos), record); err != nil {
			return err
		}
	}
	r.n += int64(len(row.ds))
	ch.chains = append(ch.chains, chainChange{key: row.key, blocked: true})
	return c.setChain(b, s, row.key, r)
}

// demote makes d, which is handed out for the first time, one that is to be tried
// again at once. Its lease is not touched.
func (c *committer) demote(b *pebble.Batch, s *sink, ch *changes, d *delivery, now time.Time) error {
	ch.counts.fresh--
	c.count(ch, -int64(freshKeyLen+d.recLen))
	c.key = appendFreshKey(c.key[:0], s.id, d.pos)
	if err := b.SingleDelete(c.key, nil); err != nil {
		return err
	}
	m := demotion{d: d, at: dueNanos(now)}
	var err error
	m.recLen, err = c.setDelayed(b, s, ch, d, m.position(), "")
	ch.demoted = append(ch.demoted, m)
	return err
}

// block notes that d, the head of its order key, is to be tried again.
func (c *committer) block(b *pebble.Batch, s *sink, ch *changes, d *delivery) error {
	ch.counts.chains++
	ch.chains = append(ch.chains, chainChange{key: d.order, blocked: true, settled: d})
	return c.setChain(b, s, d.order, chainRecord{n: 1})
}

// goOn lets the next one of an order key come, after d was settled for good. first:
// d was never tried before.
func (c *committer) goOn(b *pebble.Batch, s *sink, ch *changes, d *delivery, first, dropped bool, now time.Time) error {
	if first {
		ch.chains = append(ch.chains, chainChange{key: d.order, settled: d, dropped: dropped})
		return nil
	}
	r, err := c.chainOf(s, d.order)
	if err != nil {
		return err
	}
	if r.n <= 1 {
		c.rows[rowKey{s, d.order}] = chainRecord{}
		ch.counts.chains--
		ch.chains = append(ch.chains, chainChange{key: d.order, settled: d})
		c.key = appendChainKey(c.key[:0], s.id, d.order)
		return b.Delete(c.key, nil)
	}
	next, size, err := c.q.store.firstParked(s.id, d.order, r.from)
	if err != nil {
		return err
	}
	r.n--
	r.from = next.pos.after()
	ch.counts.parked--
	c.count(ch, -int64(timedKeyLen+size))
	c.key = appendParkedKey(c.key[:0], s.id, d.order, next.pos)
	if err := b.Delete(c.key, nil); err != nil {
		return err
	}
	next.order, next.pos.at = d.order, dueNanos(now)
	if err := c.addDelayed(b, s, ch, next, ""); err != nil {
		return err
	}
	ch.chains = append(ch.chains, chainChange{key: d.order, blocked: true, settled: d})
	return c.setChain(b, s, d.order, r)
}

// rowKey finds what is kept of an order key.
type rowKey struct {
	sink  *sink
	order uint64
}

// chainOf is what is kept of an order key, with what the batch has changed of it.
func (c *committer) chainOf(s *sink, order uint64) (chainRecord, error) {
	if r, ok := c.rows[rowKey{s, order}]; ok {
		return r, nil
	}
	return c.q.store.chain(s.id, order)
}

func (c *committer) setChain(b *pebble.Batch, s *sink, order uint64, r chainRecord) error {
	c.rows[rowKey{s, order}] = r
	return c.set(b, appendChainKey(c.key[:0], s.id, order), appendChain(c.value[:0], r))
}

// chain reads what is kept of an order key: nothing where none of its deliveries
// is to be tried again.
func (s *store) chain(sink uint32, order uint64) (r chainRecord, err error) {
	v, closer, err := s.Get(appendChainKey(nil, sink, order))
	if errors.Is(err, pebble.ErrNotFound) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	r, err = decodeChain(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return r, damaged(err)
	}
	return r, nil
}

// firstParked reads the first delivery that waits for another one of its order key,
// from a position on, and the size of its record.
func (s *store) firstParked(sink uint32, order uint64, from position) (d *delivery, size int, err error) {
	last := lastPosition()
	it, err := s.NewIter(&pebble.IterOptions{
		LowerBound: appendParkedKey(nil, sink, order, from),
		UpperBound: appendParkedKey(nil, sink, order, last),
	})
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	if !it.First() {
		if err := it.Error(); err != nil {
			return nil, 0, err
		}
		return nil, 0, damaged(fmt.Errorf("order key %x of sink %d has lost deliveries", order, sink))
	}
	_, d, size, err = parseParked(it)
	return d, size, err
}

// parseParked reads the delivery at an iterator, and the size of its record.
func parseParked(it *pebble.Iterator) (order uint64, d *delivery, size int, err error) {
	order, pos, err := parseParkedKey(it.Key())
	if err != nil {
		return 0, nil, 0, damaged(err)
	}
	r, err := decodeDelivery(it.Value())
	if err != nil {
		return 0, nil, 0, damaged(err)
	}
	return order, &delivery{pos: pos, since: r.since, eventLen: r.eventLen}, len(it.Value()), nil
}
