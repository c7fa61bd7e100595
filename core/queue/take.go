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
	park := s.wantsPark()
	if (fresh || delayed || park) && !s.reading {
		s.reading, s.readCeiling, s.readChains = true, lastPosition(), make(map[uint64]bool)
		s.mu.Unlock()
		err := q.refill(s, fresh, delayed, park)
		s.mu.Lock()
		s.reading, s.readChains = false, nil
		if err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	now := time.Now()
	s.expire(now)
	ds := s.take(now, want)
	s.wake(now)
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

// lend starts the leases of ds and describes them for the taker.
func (s *sink) lend(ds []*delivery, lease time.Duration, token func() uint64) []Leased {
	out := make([]Leased, len(ds))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease(ds, time.Now().Add(lease), token)
	for i, d := range ds {
		out[i] = Leased{
			Lease:     Lease{Sink: s.name, Seq: d.pos.seq, Index: d.pos.index, Token: d.token},
			Event:     d.event,
			Pipeline:  d.pipeline,
			Attempts:  d.attempts,
			Since:     d.since,
			Suspicion: d.suspicion,
			Ordered:   d.order != 0,
		}
	}
	s.wake(time.Now()) // one may have to watch for the end of these leases
	return out
}

// waitFor waits until it is worth to look again.
func (q *Embedded) waitFor(ctx context.Context, s *sink) error {
	s.mu.Lock()
	now := time.Now()
	if s.ready(now) {
		s.mu.Unlock()
		return nil
	}
	w := s.wait()
	s.mu.Unlock()

	var due <-chan time.Time
	if !w.until.IsZero() {
		timer := time.NewTimer(max(w.until.Sub(now), 0))
		defer timer.Stop()
		due = timer.C
	}
	var err error
	select {
	case <-w.woken:
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
	defer s.mu.Unlock()
	s.leave(w)
	if err != nil { // it may have been woken, or the one to watch
		s.wake(time.Now())
	}
	return err
}
