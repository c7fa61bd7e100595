package queue

import (
	"fmt"
	"math"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
)

// append keeps one event, or sets the request's error where there is no room.
func (c *committer) append(b *pebble.Batch, r *appendRequest, now time.Time) error {
	if r.once != nil {
		known, err := c.known(r, now)
		if err != nil || known {
			return err
		}
	}
	if r.err = c.roomFor(r, now); r.err == nil {
		return c.accept(b, r, now)
	}
	return nil
}

// roomFor is an ErrFull where the queue, its disk or a sink has no room for r.
func (c *committer) roomFor(r *appendRequest, now time.Time) error {
	if err := c.room.check(c.state.bytes, r.size(), now); err != nil {
		return err
	}
	return c.refuses(r, now)
}

// accept writes the event, and the key of one that is kept once.
func (c *committer) accept(b *pebble.Batch, r *appendRequest, now time.Time) error {
	if len(r.routes) > 0 {
		if err := c.keep(b, r, now); err != nil {
			return err
		}
	}
	if r.once != nil {
		return c.remember(b, r, now)
	}
	return nil
}

// size is what an append counts against the limit of the queue, a little more
// where a route is dead.
func (r *appendRequest) size() int64 {
	return int64(eventKeyLen+len(r.record)) + int64(len(r.routes))*r.share()
}

// share is what is kept for one delivery besides its event.
func (r *appendRequest) share() int64 { return int64(freshKeyLen + len(r.delivery)) }

// refuses is an ErrFull where a sink that wants no event without its delivery has
// no room for it.
func (c *committer) refuses(r *appendRequest, now time.Time) error {
	var before map[*sink]int64 // of this event
	for i := range r.routes {
		s := c.q.sink(r.routes[i].Sink)
		bounds := s.bounds.Load()
		if r.routes[i].Dead != nil || bounds == nil || bounds.WhenFull != RefuseNew {
			continue
		}
		if c.over(s, bounds, r)+before[s] > 0 {
			c.room.backlogFull(s.name, RefuseNew.String(), bounds.MaxBacklog, now)
			c.room.refused.note(refusedBy{NoRoomBacklog, s.name}, r.backlog()+before[s], now)
			return fmt.Errorf("%w: %s", ErrFull, overflow(s.name, bounds.MaxBacklog))
		}
		c.room.refused.accepted(refusedBy{NoRoomBacklog, s.name}, now)
		if before == nil {
			before = make(map[*sink]int64)
		}
		before[s] += r.backlog()
	}
	return nil
}

// backlog is what a delivery of r takes of the backlog of its sink.
func (r *appendRequest) backlog() int64 { return r.share() + int64(len(r.record)) }

// over is by how many bytes a delivery of r would exceed the backlog of s; negative:
// there is room for it.
func (c *committer) over(s *sink, bounds *Limits, r *appendRequest) int64 {
	if bounds == nil || bounds.MaxBacklog <= 0 {
		return math.MinInt64 / 2
	}
	return c.changesOf(s).counts.bytes + r.backlog() - bounds.MaxBacklog
}

func overflow(sink string, limit int64) string {
	return fmt.Sprintf("the backlog of sink %q has reached its max_backlog of %d bytes", sink, limit)
}

// keep writes the event and its deliveries.
func (c *committer) keep(b *pebble.Batch, r *appendRequest, now time.Time) error {
	seq := c.state.nextSeq
	c.state.nextSeq++
	kept := 0
	for i := range r.routes {
		ok, err := c.keepDelivery(b, r, i, seq, now)
		if err != nil {
			return err
		}
		if ok {
			kept++
		}
	}
	if kept == 0 {
		return nil
	}
	if len(r.routes) > 1 {
		c.left[seq] = kept
	}
	if kept < len(r.routes) {
		if err := c.setNumber(b, appendLeftKey(c.key[:0], seq), uint64(kept)); err != nil {
			return err
		}
	}
	c.state.bytes += int64(eventKeyLen + len(r.record))
	c.key = appendEventKey(c.key[:0], seq)
	return b.Set(c.key, r.record, nil)
}

// keepDelivery writes one delivery, and tells whether it was kept.
func (c *committer) keepDelivery(b *pebble.Batch, r *appendRequest, i int, seq uint64, now time.Time) (bool, error) {
	rt := &r.routes[i]
	s := c.q.sink(rt.Sink)
	if err := c.name(b, s); err != nil {
		return false, err
	}
	ch := c.changesOf(s)
	d := &delivery{
		pos: position{seq: seq, index: uint32(i)}, since: r.event.Accepted, recLen: len(r.delivery), eventLen: len(r.record),
		event: r.event, pipeline: rt.Pipeline, routes: len(r.routes), order: rt.Order,
	}
	if rt.Dead != nil {
		return true, c.deadFromStart(b, s, ch, d, *rt.Dead, now)
	}
	bounds := s.bounds.Load() // they may be others in a moment
	if over := c.over(s, bounds, r); over > 0 {
		if bounds.WhenFull != DropOldest {
			c.room.backlogFull(s.name, BuryNew.String(), bounds.MaxBacklog, now)
			return true, c.deadFromStart(b, s, ch, d, event.Death{Reason: event.ReasonOverflow, Error: overflow(s.name, bounds.MaxBacklog)}, now)
		}
		c.room.backlogFull(s.name, DropOldest.String(), bounds.MaxBacklog, now)
		ok, err := c.dropFor(b, s, ch, r.backlog(), over, now)
		if err != nil {
			return false, err
		}
		if !ok {
			c.told.dropped(s.name)
			return false, nil
		}
	}
	if d.order != 0 && ch.counts.chains > 0 {
		r, err := c.chainOf(s, d.order)
		if err != nil {
			return false, err
		}
		d.blocked = r.n > 0
	}
	ch.counts.fresh++
	c.count(ch, r.share())
	ch.counts.bytes += int64(len(r.record))
	ch.fresh = append(ch.fresh, d)
	c.key = appendFreshKey(c.key[:0], s.id, d.pos)
	return true, b.Set(c.key, r.delivery, nil)
}

// deadFromStart keeps a delivery as a dead letter.
func (c *committer) deadFromStart(b *pebble.Batch, s *sink, ch *changes, d *delivery, death event.Death, now time.Time) error {
	ch.counts.bytes += int64(d.eventLen) // which bury takes off again
	c.told.deadLetter(s.name, death.Reason)
	return c.bury(b, s, ch, d, death, 0, now)
}

// told is what the watcher is to be told of after the commit.
type told struct {
	letters []toldLetter
	counts  map[string]int // dropped, by sink
	removed map[toldRemoved]int
}

type toldLetter struct {
	sink   string
	reason event.Reason
}

func (t *told) deadLetter(sink string, reason event.Reason) {
	t.letters = append(t.letters, toldLetter{sink, reason})
}

func (t *told) dropped(sink string) {
	if t.counts == nil {
		t.counts = make(map[string]int)
	}
	t.counts[sink]++
}

// toldRemoved says of which dead letters some were removed, and why.
type toldRemoved struct {
	sink string
	aged bool
}

func (t *told) discarded(sink string, aged bool) {
	if t.removed == nil {
		t.removed = make(map[toldRemoved]int)
	}
	t.removed[toldRemoved{sink, aged}]++
}

// tell tells the watcher what the last commit ended.
func (c *committer) tell() {
	w := c.q.options.Watcher
	for _, l := range c.told.letters {
		w.DeadLetter(l.sink, l.reason)
	}
	for sink, n := range c.told.counts {
		w.Dropped(sink, n)
	}
	for r, n := range c.told.removed {
		w.Discarded(r.sink, r.aged, n)
	}
	c.told.letters = c.told.letters[:0]
	clear(c.told.counts)
	clear(c.told.removed)
}
