package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// settleRequest is what one Settle changes.
type settleRequest struct {
	moves     []move
	cancelled bool
	err       error
}

// move is one settlement, of a delivery that was claimed.
type move struct {
	sink *sink
	d    *delivery
	to   Settlement
	// dropped: neither delivered nor dead, for want of room.
	dropped bool
}

// Settle implements Queue.
func (q *Embedded) Settle(ctx context.Context, settlements []Settlement) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.usable(); err != nil {
		return err
	}
	for i := range settlements {
		if err := settlements[i].check(); err != nil {
			return fmt.Errorf("settlement %d of %d: %w", i+1, len(settlements), err)
		}
	}
	var stale []error
	now := time.Now()
	r := &settleRequest{moves: make([]move, 0, len(settlements))}
	for i := range settlements {
		st := &settlements[i]
		if !q.claim(r, st, now) {
			stale = append(stale, staleError(st.Lease))
		}
	}
	if len(r.moves) == 0 {
		return errors.Join(stale...)
	}
	g, err := q.groups.join(nil, r, 64*len(r.moves))
	if err == nil {
		var answered bool
		answered, err = q.await(ctx, g, func() { r.cancelled = true })
		if answered {
			err = r.err
		}
	}
	if err != nil {
		// Nothing was settled. After a failure nothing else will be.
		for _, m := range r.moves {
			m.sink.mu.Lock()
			m.sink.unclaim(m.d)
			m.sink.wake(time.Now())
			m.sink.mu.Unlock()
		}
		return err
	}
	return errors.Join(stale...)
}

// claim makes a move of st, if its lease is held.
func (q *Embedded) claim(r *settleRequest, st *Settlement, now time.Time) bool {
	s := q.knownSink(st.Lease.Sink)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.holder(st.Lease, now)
	if d == nil {
		return false
	}
	if st.Retry != nil && st.Retry.Error == "" && st.Attempts == d.attempts && st.Suspicion == d.suspicion && !st.Retry.At.After(now) {
		s.giveBack(d) // nothing changes on disk
		s.wake(now)
		return true
	}
	s.claim(d)
	r.moves = append(r.moves, move{sink: s, d: d, to: *st})
	return true
}

func (st *Settlement) check() error {
	ways := 0
	if st.Delivered {
		ways++
	}
	if st.Drop {
		ways++
	}
	if st.Retry != nil {
		ways++
	}
	if st.Dead != nil {
		ways++
	}
	switch {
	case ways != 1:
		return fmt.Errorf("sink %s: %d of Delivered, Drop, Retry and Dead are set, not 1", st.Lease.Sink, ways)
	case st.Attempts < 0 || st.Attempts > maxAttempts:
		return fmt.Errorf("sink %s: %d attempts", st.Lease.Sink, st.Attempts)
	case st.Suspicion != Suspicion{} && st.Retry == nil:
		return fmt.Errorf("sink %s: a suspicion of what is not tried again", st.Lease.Sink)
	}
	return st.Suspicion.check(st.Lease.Sink)
}

func (s Suspicion) check(sink string) error {
	if s.Crashes < 0 || s.Crashes > maxAttempts || s.Alone < 0 || s.Alone > s.Crashes || s.Delivered < 0 || (s.Crashes == 0 && s != Suspicion{}) {
		return fmt.Errorf("sink %s: a suspicion that cannot be: %+v", sink, s)
	}
	return nil
}

// maxAttempts is what a record can hold.
const maxAttempts = 1<<31 - 1

func staleError(l Lease) error {
	return fmt.Errorf("%w: sink %s, delivery %d.%d", ErrStale, l.Sink, l.Seq, l.Index)
}

// Extend implements Queue.
func (q *Embedded) Extend(ctx context.Context, leases []Lease, by time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.usable(); err != nil {
		return err
	}
	if by <= 0 {
		return fmt.Errorf("a lease cannot be extended by %s", by)
	}
	var stale []error
	now := time.Now()
	for _, l := range leases {
		if !q.extend(l, now, now.Add(by)) {
			stale = append(stale, staleError(l))
		}
	}
	return errors.Join(stale...)
}

func (q *Embedded) extend(l Lease, now, until time.Time) bool {
	s := q.knownSink(l.Sink)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.holder(l, now)
	if d == nil {
		return false
	}
	d.expiry = until
	s.expiry.fix(d)
	s.wake(now) // it may be a shorter time
	return true
}
