package queue

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxUnsynced is how long a settlement may be lost to a power cut or kill
	// -9, which hands the delivery out again.
	maxUnsynced = 200 * time.Millisecond
	// maxLeftCache is for how many events the number of deliveries left is
	// remembered; others are read again.
	maxLeftCache = 1 << 16
	// maxGather is how long the callers of one commit are waited for to come
	// back before the next one, maxGatherIdle how long while none comes.
	maxGather     = time.Millisecond
	maxGatherIdle = 100 * time.Microsecond
)

// committer is the one goroutine that writes. It takes the groups in line, makes
// one batch of each, commits it, publishes the result to the sinks in the order
// of commits, and answers the callers. So all that is kept changes in one place
// and needs no locks: the commit sequence, the counters, and the number of
// deliveries that each event has left.
type committer struct {
	q     *Embedded
	state storeRecord
	// changed are the sinks that the batch changes.
	changed map[*sink]*changes
	spare   []*changes
	// left is how many deliveries events have left, those with several.
	left map[uint64]int

	unsynced   time.Time // when the first commit without sync was; zero: none
	watch      *watchdog
	room       room
	lastGroup  int // appends in the group before
	commitTime time.Duration
	key, value []byte // scratch
	mustSync   bool   // the batch has more than settlements as delivered or to be tried again
	// onces are the keys of the batch that are to be remembered.
	onces map[[onceHashLen]byte]ulid.ULID
	// rows are the order keys that the batch changes: what will be kept of them.
	rows map[rowKey]chainRecord
	// parkedFrom is where what is parked was last dropped.
	parkedFrom map[*sink][]byte
	told       told
}

func newCommitter(q *Embedded) *committer {
	c := &committer{
		q:       q,
		changed: make(map[*sink]*changes),
		left:    make(map[uint64]int),
		room:    room{options: q.options, limits: &q.limits, health: q.health, reclaim: &reclaimer{q: q}, refused: &q.refusals},
		onces:   make(map[[onceHashLen]byte]ulid.ULID),
		rows:    make(map[rowKey]chainRecord),

		parkedFrom: make(map[*sink][]byte),
	}
	c.watch = newWatchdog(q.options.StallTimeout, func() bool { return q.store.shortage.error() != nil }, func() {
		q.health.fail(fmt.Errorf("queue %s: the disk did not take a commit within %s", q.options.Dir, q.options.StallTimeout))
	})
	return c
}

// run ends when the queue is closed, or has failed.
func (c *committer) run() {
	defer close(c.q.done)
	defer c.watch.end()
	idle := time.NewTimer(maxUnsynced)
	defer idle.Stop()
	sweep := time.NewTimer(sweepEvery)
	defer sweep.Stop()
	for {
		select {
		case <-c.q.groups.ready:
		case <-idle.C:
			c.syncSettled()
		case <-sweep.C:
			pause := sweepEvery
			g := newGroup()
			g.edit = &edit{run: func(c *committer, b *pebble.Batch, now time.Time) error {
				more, err := c.sweep(b, now)
				if more {
					pause = 10 * time.Millisecond
				}
				return err
			}}
			err := c.q.health.guard(func() error { return c.commit(g) })
			if err != nil {
				c.q.health.fail(err)
				return
			}
			sweep.Reset(pause)
		case <-c.q.closing:
			c.q.groups.close()
			c.syncSettled()
			return
		}
		c.gather()
		for g := c.q.groups.take(); g != nil; g = c.q.groups.take() {
			if err := c.q.health.guard(func() error { return c.commit(g) }); err != nil {
				c.q.health.fail(err)
				return
			}
			select {
			case <-c.q.closing:
				c.q.groups.close()
			default:
			}
			c.gather()
		}
		if !c.unsynced.IsZero() {
			idle.Reset(time.Until(c.unsynced.Add(maxUnsynced)))
		}
	}
}

// gather waits a moment for the callers of the last group: they come back at
// once where they are busy, and a sync for the first few of them alone would make
// the others wait for it. It ends when all are there, or no more come.
func (c *committer) gather() {
	if c.lastGroup < 2 {
		return
	}
	now, n := time.Now(), c.q.groups.waiting()
	until, grew, all := now.Add(min(maxGather, c.commitTime/2)), now, n+c.lastGroup
	for ; n < all && now.Before(until) && now.Sub(grew) < maxGatherIdle; now = time.Now() {
		if w := c.q.groups.waiting(); w != n {
			n, grew = w, now
		}
		runtime.Gosched()
	}
	c.lastGroup = 0
}

// commit commits one group and answers it. On an error nothing is answered.
func (c *committer) commit(g *group) error {
	// What it reads, and asking for the free space, may hang like a write.
	c.watch.begin()
	defer c.watch.end()
	batch := c.q.store.NewBatch()
	defer func() { _ = batch.Close() }()
	err := c.build(batch, g)
	if err == nil && !batch.Empty() {
		err = c.apply(batch, c.appended(g) || c.mustSync)
	}
	if err != nil {
		return err
	}
	for s, ch := range c.changed {
		s.publish(ch)
		ch.reset()
		c.spare = append(c.spare, ch)
		delete(c.changed, s)
	}
	c.q.bytes.Store(c.state.bytes)
	c.lastGroup = len(g.appends)
	g.answer()
	c.q.groups.finished()
	c.tell()
	return nil
}

func (c *committer) appended(g *group) bool {
	for _, r := range g.appends {
		if !r.cancelled && r.err == nil {
			return true
		}
	}
	return false
}

// apply commits the batch, synced where it has to be.
func (c *committer) apply(batch *pebble.Batch, sync bool) error {
	now := time.Now()
	if sync = sync || (!c.unsynced.IsZero() && now.Sub(c.unsynced) >= maxUnsynced); sync {
		c.unsynced = time.Time{}
	} else if c.unsynced.IsZero() {
		c.unsynced = now
	}
	options := pebble.NoSync
	if sync {
		options = pebble.Sync
	}
	if err := c.q.store.Apply(batch, options); err != nil {
		return fmt.Errorf("queue %s: commit: %w", c.q.options.Dir, err)
	}
	if sync {
		c.commitTime = time.Since(now)
	}
	// Pebble reports what is fatal to its log only.
	return c.q.health.error()
}

// syncSettled syncs what was settled without.
func (c *committer) syncSettled() {
	if c.unsynced.IsZero() || c.q.health.error() != nil {
		return
	}
	c.watch.begin()
	defer c.watch.end()
	err := c.q.health.guard(func() error { return c.q.store.LogData(nil, pebble.Sync) })
	if err != nil {
		c.q.health.fail(fmt.Errorf("queue %s: sync: %w", c.q.options.Dir, err))
	}
	c.unsynced = time.Time{}
}

// build makes the batch of a group. Requests that are refused get their error.
func (c *committer) build(b *pebble.Batch, g *group) error {
	if len(c.left) > maxLeftCache {
		c.left = make(map[uint64]int)
	}
	c.mustSync = false
	clear(c.onces)
	clear(c.rows)
	now := time.Now()
	for _, r := range g.appends {
		if r.cancelled {
			continue
		}
		if err := c.append(b, r, now); err != nil {
			return err
		}
	}
	for _, r := range g.settles {
		if r.cancelled {
			continue
		}
		for i := range r.moves {
			if err := c.settle(b, &r.moves[i], now); err != nil {
				return err
			}
		}
	}
	if g.edit != nil && !g.edit.cancelled {
		if err := g.edit.run(c, b, now); err != nil {
			return err
		}
		c.mustSync = true
	}
	if g.edit == nil {
		if err := c.prune(b); err != nil {
			return err
		}
	}
	if b.Empty() {
		return nil
	}
	for s, ch := range c.changed {
		if s.id == 0 {
			continue // only looked at
		}
		r := sinkRecord{counts: ch.counts, dead: ch.dead}
		r.fresh, r.delayed, r.age = s.marks(ch)
		s.announce(ch)
		if err := c.set(b, appendSinkKey(c.key[:0], spaceSink, s.id), appendSink(c.value[:0], r)); err != nil {
			return err
		}
	}
	return c.set(b, append(c.key[:0], keyCounters()...), appendStore(c.value[:0], c.state))
}

// set keeps key and value as the next scratch.
func (c *committer) set(b *pebble.Batch, key, value []byte) error {
	c.key, c.value = key, value
	return b.Set(key, value, nil)
}

// changesOf returns what the batch changes of s.
func (c *committer) changesOf(s *sink) *changes {
	ch := c.changed[s]
	if ch == nil {
		if n := len(c.spare); n > 0 {
			ch, c.spare = c.spare[n-1], c.spare[:n-1]
		} else {
			ch = new(changes)
		}
		s.mu.Lock()
		ch.counts, ch.dead, ch.buried = s.counts, s.deadMark, lastPosition()
		s.mu.Unlock()
		c.changed[s] = ch
	}
	return ch
}

// name gives a sink its number, in the batch that keeps its first delivery.
func (c *committer) name(b *pebble.Batch, s *sink) error {
	if s.id != 0 {
		return nil
	}
	id := c.state.nextSink
	c.state.nextSink++
	s.mu.Lock()
	s.id = id
	s.freshNext = position{seq: c.state.nextSeq - 1}
	s.mu.Unlock()
	return c.set(b, appendSinkKey(c.key[:0], spaceName, id), appendString(c.value[:0], 1, s.name))
}

// setNumber keeps a record whose field 1 is a number.
func (c *committer) setNumber(b *pebble.Batch, key []byte, n uint64) error {
	value := protowire.AppendTag(c.value[:0], 1, protowire.VarintType)
	return c.set(b, key, protowire.AppendVarint(value, n))
}

func (c *committer) settle(b *pebble.Batch, m *move, now time.Time) error {
	s, d := m.sink, m.d
	ch, first := c.changesOf(s), d.isFresh()
	lastError, err := c.removeOld(b, m, ch)
	if err != nil {
		return err
	}
	ch.gone = append(ch.gone, d)
	if m.to.Retry != nil {
		if m.to.Retry.Error != "" {
			lastError = m.to.Retry.Error
		}
		if err := c.delay(b, m, ch, lastError); err != nil {
			return err
		}
		if d.order != 0 && first {
			return c.block(b, s, ch, d)
		}
		return nil
	}
	if m.to.Dead != nil {
		c.mustSync = true
		err = c.bury(b, s, ch, d, *m.to.Dead, m.to.Attempts, now)
	} else {
		ch.counts.bytes -= int64(d.eventLen)
		if m.to.Delivered {
			ch.counts.delivered++
		}
		err = c.release(b, d)
	}
	if err != nil || d.order == 0 {
		return err
	}
	return c.goOn(b, s, ch, d, first, m.dropped, now)
}

// removeOld deletes the delivery from where it is. lastError is the one to go
// with it, where it goes on without a new attempt.
func (c *committer) removeOld(b *pebble.Batch, m *move, ch *changes) (lastError string, err error) {
	s, d := m.sink, m.d
	if d.isFresh() {
		ch.counts.fresh--
		c.count(ch, -int64(freshKeyLen+d.recLen))
		c.key = appendFreshKey(c.key[:0], s.id, d.pos)
		return "", b.SingleDelete(c.key, nil)
	}
	ch.counts.delayed--
	c.count(ch, -int64(2*timedKeyLen+d.recLen))
	c.key = appendTimedKey(c.key[:0], spaceDelayed, s.id, d.pos)
	if m.to.Retry != nil && m.to.Retry.Error == "" && m.to.Attempts == d.attempts {
		if lastError, err = c.lastError(c.key); err != nil {
			return "", err
		}
	}
	if err := b.Delete(c.key, nil); err != nil {
		return "", err
	}
	c.key = appendTimedKey(c.key[:0], spaceDelayedAge, s.id, agePosition(d))
	return lastError, b.Delete(c.key, nil)
}

// count adds to what is kept for the deliveries of a sink that are not settled.
func (c *committer) count(ch *changes, n int64) {
	ch.counts.bytes += n
	c.state.bytes += n
}

func (c *committer) lastError(key []byte) (string, error) {
	v, closer, err := c.q.store.Get(key)
	if err != nil {
		return "", damaged(fmt.Errorf("delivery %x: %w", key, err))
	}
	r, err := decodeDelivery(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return "", damaged(err)
	}
	return r.err, nil
}

// delay puts a delivery among those to be tried again.
func (c *committer) delay(b *pebble.Batch, m *move, ch *changes, lastError string) error {
	d := m.d
	return c.addDelayed(b, m.sink, ch, &delivery{
		pos:   position{at: dueNanos(m.to.Retry.At), seq: d.pos.seq, index: d.pos.index},
		since: d.since, attempts: m.to.Attempts, eventLen: d.eventLen, suspicion: m.to.Suspicion, order: d.order,
	}, lastError)
}

// addDelayed adds d to those to be tried again. Its event is not in memory then.
func (c *committer) addDelayed(b *pebble.Batch, s *sink, ch *changes, d *delivery, lastError string) error {
	n, err := c.setDelayed(b, s, ch, d, d.pos, lastError)
	d.recLen = n
	ch.delayed = append(ch.delayed, d)
	return err
}

// setDelayed writes d as one to be tried again, at a position, and returns the
// length of its record.
func (c *committer) setDelayed(b *pebble.Batch, s *sink, ch *changes, d *delivery, at position, lastError string) (int, error) {
	record := appendDelivery(c.value[:0], deliveryRecord{
		since: d.since, attempts: d.attempts, err: cut(lastError), eventLen: d.eventLen, suspicion: d.suspicion, order: d.order,
	})
	ch.counts.delayed++
	c.count(ch, int64(2*timedKeyLen+len(record)))
	if err := c.set(b, appendTimedKey(c.key[:0], spaceDelayed, s.id, at), record); err != nil {
		return 0, err
	}
	c.key = appendTimedKey(c.key[:0], spaceDelayedAge, s.id, position{at: nanos(d.since), seq: at.seq, index: at.index})
	return len(record), b.Set(c.key, nil, nil)
}

// release takes one delivery off an event, and the event away with its last one.
func (c *committer) release(b *pebble.Batch, d *delivery) error {
	seq := d.pos.seq
	if d.routes > 1 {
		n, err := c.leftOf(d)
		if err != nil {
			return err
		}
		left := n - 1
		leftKey := appendLeftKey(c.key[:0], seq)
		if left > 0 {
			c.left[seq] = left
			return c.setNumber(b, leftKey, uint64(left))
		}
		delete(c.left, seq)
		if err := b.Delete(leftKey, nil); err != nil {
			return err
		}
	}
	c.state.bytes -= int64(eventKeyLen + d.eventLen)
	c.key = appendEventKey(c.key[:0], seq)
	return b.SingleDelete(c.key, nil)
}

// leftOf is how many deliveries the event of d has left, d included.
func (c *committer) leftOf(d *delivery) (int, error) {
	if n, ok := c.left[d.pos.seq]; ok {
		return n, nil
	}
	v, closer, err := c.q.store.Get(appendLeftKey(c.key[:0], d.pos.seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return d.routes, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := decodeNumber(v)
	if err = errors.Join(err, closer.Close()); err != nil {
		return 0, damaged(err)
	}
	if n < 1 || n > uint64(d.routes) {
		return 0, damaged(fmt.Errorf("event %d has %d of %d deliveries left", d.pos.seq, n, d.routes))
	}
	return int(n), nil
}

// dueNanos is a time as a position; 0 is for those without.
func dueNanos(t time.Time) int64 { return max(nanos(t), 1) }

// cut shortens the text of an error to what is kept, at a character.
func cut(s string) string {
	if len(s) <= event.MaxErrorLen {
		return s
	}
	n := event.MaxErrorLen
	for n > event.MaxErrorLen-4 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
