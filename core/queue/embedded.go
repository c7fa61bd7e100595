package queue

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// Embedded is the queue engine within the process, on Pebble. One goroutine
// commits what all callers append and settle, in groups; see committer. What a
// sink needs soon is kept in memory; see sink.
type Embedded struct {
	options Options
	store   *store
	health  *health
	groups  *groups
	done    chan struct{} // closed when the committer has ended

	readers   gate
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error

	mu    sync.RWMutex
	sinks map[string]*sink

	limits   atomic.Pointer[roomLimits]
	refusals refusals
	bytes    atomic.Int64
	tokens   atomic.Uint64
}

var _ Queue = (*Embedded)(nil)

// Open opens the queue in options.Dir, or creates it. A directory that another
// process uses, a damaged store and one that a newer version wrote are errors
// that say what to do. Its time does not depend on how much the queue holds.
func Open(ctx context.Context, options Options) (*Embedded, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	h := newHealth()
	st, err := openStore(ctx, o, h)
	if err != nil {
		return nil, err
	}
	q := &Embedded{
		options: o,
		store:   st,
		health:  h,
		groups:  newGroups(),
		done:    make(chan struct{}),
		closing: make(chan struct{}),
		sinks:   make(map[string]*sink),
	}
	q.Resize(o.MaxBytes, o.ReserveBytes)
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	// Leases of a former process are not to be taken for those of this one.
	q.tokens.Store(binary.BigEndian.Uint64(seed[:]))

	c := newCommitter(q)
	if err := h.guard(func() error { return q.load(c) }); err != nil {
		return nil, errors.Join(fmt.Errorf("queue %s: %w", o.Dir, err), st.close(h))
	}
	q.Configure(o.Sinks)
	go c.run()
	go q.rouse()
	go c.room.reclaim.watch()
	o.Logger.Info("queue opened", "dir", o.Dir, "bytes", q.bytes.Load(), "limit_bytes", o.MaxBytes,
		"duration", time.Since(started))
	return q, nil
}

// load reads the state of the store and of its sinks: a few records.
func (q *Embedded) load(c *committer) error {
	v, closer, err := q.store.Get(keyCounters())
	if err == nil {
		c.state, err = decodeStore(v)
		err = errors.Join(err, closer.Close())
		if err != nil {
			return damaged(err)
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return damaged(err)
	}
	c.state.nextSeq = max(c.state.nextSeq, 1)
	c.state.nextSink = max(c.state.nextSink, 1)
	q.bytes.Store(c.state.bytes)

	names, err := q.readNames()
	if err != nil {
		return err
	}
	for id, name := range names {
		s := newSink(name, id, q.windowLimits())
		s.freshNext = position{seq: c.state.nextSeq}
		s.published = s.freshNext
		v, closer, err := q.store.Get(appendSinkKey(nil, spaceSink, id))
		if errors.Is(err, pebble.ErrNotFound) {
			err = fmt.Errorf("sink %s has no state", name)
		}
		if err != nil {
			return damaged(err)
		}
		r, err := decodeSink(v)
		if err = errors.Join(err, closer.Close()); err != nil {
			return damaged(err)
		}
		if err := q.resume(s, r); err != nil {
			return err
		}
		q.sinks[name] = s
	}
	return nil
}

// resume puts s to where the store says.
func (q *Embedded) resume(s *sink, r sinkRecord) error {
	s.counts = r.counts
	if r.counts.fresh > 0 {
		s.freshAll, s.freshNext = false, r.fresh
		page, err := q.readFresh(s, r.fresh, s.published, 0, 0)
		if err != nil {
			return err
		}
		if page.next == s.published {
			return damaged(fmt.Errorf("%d deliveries to sink %s are missing", r.counts.fresh, s.name))
		}
		s.freshNext, s.freshSince = page.next, page.since
	}
	if r.counts.delayed > 0 {
		s.delayedNext, s.oldest = r.delayed, r.age
	}
	if r.counts.dead > 0 {
		s.deadMark = r.dead
	}
	return nil
}

func (q *Embedded) windowLimits() windowLimits {
	return windowLimits{events: q.options.WindowEvents, bytes: q.options.WindowBytes}
}

// sink returns the sink of a name, made where there was none.
func (q *Embedded) sink(name string) *sink {
	if s := q.knownSink(name); s != nil {
		return s
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.sinks[name]
	if s == nil {
		s = newSink(name, 0, q.windowLimits())
		q.sinks[name] = s
	}
	return s
}

func (q *Embedded) knownSink(name string) *sink {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.sinks[name]
}

func (q *Embedded) allSinks() map[string]*sink {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return maps.Clone(q.sinks)
}

// Failed is closed when the store has failed: the process has to end.
func (q *Embedded) Failed() <-chan struct{} { return q.health.failed }

// Err says why the store has failed, as an ErrFailed. It is nil while it has not.
func (q *Embedded) Err() error { return q.health.error() }

// usable is nil while the queue can be used.
func (q *Embedded) usable() error {
	if err := q.health.error(); err != nil {
		return err
	}
	select {
	case <-q.closing:
		return ErrClosed
	default:
		return nil
	}
}

// Append implements Queue.
func (q *Embedded) Append(ctx context.Context, ev *event.Event, routes []event.Route) error {
	started := time.Now()
	defer func() { q.options.AppendDuration.Observe(time.Since(started).Seconds()) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.usable(); err != nil {
		return err
	}
	if len(routes) == 0 {
		return nil
	}
	_, err := q.append(ctx, ev, routes, nil)
	return err
}

// AppendOnce implements Queue.
func (q *Embedded) AppendOnce(ctx context.Context, ev *event.Event, routes []event.Route, once event.Once) (first ulid.ULID, err error) {
	started := time.Now()
	defer func() { q.options.AppendDuration.Observe(time.Since(started).Seconds()) }()
	if err := ctx.Err(); err != nil {
		return first, err
	}
	if err := q.usable(); err != nil {
		return first, err
	}
	return q.append(ctx, ev, routes, &once)
}

func (q *Embedded) append(ctx context.Context, ev *event.Event, routes []event.Route, once *event.Once) (first ulid.ULID, err error) {
	if err := q.store.shortage.error(); err != nil {
		return first, err
	}
	r, err := q.groups.newAppend(ev, routes)
	if err != nil {
		return first, err
	}
	if once != nil {
		r.once, r.hash = once, onceHash(ev.Source, once.Key)
	}
	g, err := q.groups.join(r, nil, len(r.record))
	if err != nil {
		return first, err
	}
	answered, err := q.awaitAppend(ctx, g, func() { r.cancelled = true })
	if !answered {
		return first, err // the committer may still use r
	}
	first, err = r.first, r.err
	q.groups.free(r)
	return first, err
}

// Resize changes what Options.MaxBytes and ReserveBytes say, both above zero.
// Nothing that is kept is removed.
func (q *Embedded) Resize(maxBytes, reserveBytes int64) {
	q.limits.Store(&roomLimits{maxBytes: maxBytes, reserveBytes: reserveBytes})
}

// Configure implements Queue.
func (q *Embedded) Configure(sinks map[string]Limits) {
	for name, limits := range sinks {
		q.sink(name).bounds.Store(&limits)
	}
	for name, s := range q.allSinks() {
		if _, ok := sinks[name]; !ok {
			s.bounds.Store(nil)
		}
	}
}

// await waits until the group is answered. Where ctx ends before the group's
// commit began, it calls cancel, without waiting any longer.
func (q *Embedded) await(ctx context.Context, g *group, cancel func()) (answered bool, err error) {
	select {
	case <-g.done:
		return true, nil
	case <-q.health.failed:
	case <-ctx.Done():
		if q.groups.leave(g, cancel) {
			return false, ctx.Err()
		}
		select {
		case <-g.done:
			return true, nil
		case <-q.health.failed:
		}
	}
	return false, q.health.error()
}

// awaitAppend is await, which does not wait for room on a full disk unless the
// commit has begun: nobody can tell what becomes of that.
func (q *Embedded) awaitAppend(ctx context.Context, g *group, cancel func()) (answered bool, err error) {
	// What begins after this look rouses the group.
	if q.store.shortage.error() == nil && q.health.error() == nil {
		select {
		case <-g.woken:
		case <-ctx.Done():
		}
	}
	select {
	case <-g.done: // as nearly always
		return true, nil
	default:
	}
	select {
	case <-g.done:
		return true, nil
	case <-q.store.shortage.begin():
		if q.groups.leave(g, cancel) {
			return false, errNoSpace
		}
	case <-q.health.failed:
	case <-ctx.Done():
	}
	return q.await(ctx, g, cancel)
}

// rouse has callers of Append look around when the store fails, and when a shortage
// begins. A shortage that follows another one within roomEvery is noticed so late.
func (q *Embedded) rouse() {
	for {
		select {
		case <-q.health.failed:
			q.groups.alarm()
			return
		case <-q.done: // perhaps by a failure
			q.groups.alarm()
			return
		case <-q.store.shortage.begin():
			q.groups.alarm()
		}
		select {
		case <-q.health.failed:
		case <-q.done:
		case <-time.After(roomEvery):
		}
	}
}

// Stats implements Queue.
func (q *Embedded) Stats() Stats {
	st := Stats{
		Bytes:      q.bytes.Load(),
		LimitBytes: q.limits.Load().maxBytes,
		Sinks:      make(map[string]SinkStats),
	}
	now := time.Now()
	st.NoRoom = q.noRoom(now)
	for name, s := range q.allSinks() {
		s.mu.Lock()
		sst := s.stats(now)
		sst.OldestPending = s.oldestFresh()
		s.mu.Unlock()
		if oldest := q.oldestDelayed(s); !oldest.IsZero() && (sst.OldestPending.IsZero() || oldest.Before(sst.OldestPending)) {
			sst.OldestPending = oldest
		}
		if sst != (SinkStats{}) {
			st.Sinks[name] = sst
		}
	}
	return st
}

// Close implements Queue.
func (q *Embedded) Close() error {
	q.closeOnce.Do(func() {
		close(q.closing)
		stalled := time.AfterFunc(q.options.StallTimeout, func() {
			q.health.fail(fmt.Errorf("queue %s: the disk did not let the store be closed within %s; what was answered is on it", q.options.Dir, q.options.StallTimeout))
		})
		defer stalled.Stop()
		select {
		case <-q.done:
		case <-q.health.failed:
			// Pebble is in an unknown state and may hang: the process has to end.
			q.closeErr = q.health.error()
			return
		}
		select {
		case <-q.readers.close():
		case <-q.health.failed:
			q.closeErr = q.health.error()
			return
		}
		q.closeErr = q.store.close(q.health)
		q.options.Logger.Info("queue closed", "dir", q.options.Dir)
	})
	return q.closeErr
}
