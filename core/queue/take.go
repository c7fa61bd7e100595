package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Take implements Queue.
func (q *Embedded) Take(ctx context.Context, sinkName string, want Want) ([]Leased, error) {
	if want.Lease <= 0 {
		return nil, fmt.Errorf("take for sink %s: a lease of %s", sinkName, want.Lease)
	}
	if sinkName == "" {
		return nil, errors.New("take: no sink")
	}
	want.MaxEvents = max(want.MaxEvents, 1)
	s := q.sink(sinkName)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := q.usable(); err != nil {
			return nil, err
		}
		ds, err := q.takeNow(s, want)
		if err != nil {
			return nil, err
		}
		if len(ds) > 0 {
			return s.lend(ds, want.Lease, func() uint64 { return q.tokens.Add(1) }), nil
		}
		if err := q.waitFor(ctx, s); err != nil {
			return nil, err
		}
	}
}

// takeNow takes what is due, and reads from the store where that is needed.
func (q *Embedded) takeNow(s *sink, want Want) ([]*delivery, error) {
	s.mu.Lock()
	fresh, delayed := s.wants()
	if (fresh || delayed) && !s.reading {
		s.reading, s.readCeiling = true, lastPosition
		s.mu.Unlock()
		err := q.refill(s, fresh, delayed)
		s.mu.Lock()
		s.reading = false
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	now := time.Now()
	s.expire(now)
	ds := s.take(now, want)
	s.wakeIfMore(now)
	s.mu.Unlock()

	for _, d := range ds {
		if d.event != nil {
			continue
		}
		if err := q.readEvent(d); err != nil {
			return nil, err
		}
	}
	return ds, nil
}

// wakeIfMore lets the next taker look where there is more to do for it.
func (s *sink) wakeIfMore(now time.Time) {
	if len(s.waiters) == 0 {
		return
	}
	fresh, delayed := s.wants()
	if s.due(now) || ((fresh || delayed) && !s.reading) {
		s.wake()
	}
}

// due tells whether next would return something.
func (s *sink) due(now time.Time) bool {
	if s.returned.Len() > 0 || s.firstFresh() != nil {
		return true
	}
	d := s.delayed.first()
	return d != nil && d.pos.at <= now.UnixNano()
}

// lend starts the leases of ds and describes them for the taker.
func (s *sink) lend(ds []*delivery, lease time.Duration, token func() uint64) []Leased {
	out := make([]Leased, len(ds))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease(ds, time.Now().Add(lease), token)
	for i, d := range ds {
		out[i] = Leased{
			Lease:    Lease{Sink: s.name, Seq: d.pos.seq, Index: d.pos.index, Token: d.token},
			Event:    d.event,
			Pipeline: d.pipeline,
			Attempts: d.attempts,
			Since:    d.since,
		}
	}
	return out
}

// waitFor waits until it is worth to look again.
func (q *Embedded) waitFor(ctx context.Context, s *sink) error {
	s.mu.Lock()
	now := time.Now()
	fresh, delayed := s.wants()
	if s.due(now) || ((fresh || delayed) && !s.reading) {
		s.mu.Unlock()
		return nil
	}
	woken := s.wait()
	at := s.nextTime()
	s.mu.Unlock()

	var due <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(max(at.Sub(now), 0))
		defer timer.Stop()
		due = timer.C
	}
	var err error
	select {
	case <-woken:
		return nil
	case <-due:
	case <-ctx.Done():
		err = ctx.Err()
	case <-q.closing:
		err = ErrClosed
	case <-q.health.failed:
		err = q.health.error()
	}
	s.mu.Lock()
	s.leave(woken, err != nil)
	s.mu.Unlock()
	return err
}
