package queue

import (
	"slices"
	"time"
)

// waiter is a taker that waits. until is when it looks again by itself; zero:
// never.
type waiter struct {
	woken chan struct{}
	until time.Time
}

// wake lets a waiting taker look again, where something is there for it, or will
// be before any of them looks by itself. It is called after each change; the one
// that was woken calls it again when it goes on.
func (s *sink) wake(now time.Time) {
	if len(s.waiters) == 0 {
		return
	}
	if !s.ready(now) {
		next := s.nextTime()
		watched := func(w waiter) bool { return !w.until.IsZero() && !w.until.After(next) }
		if next.IsZero() || slices.ContainsFunc(s.waiters, watched) {
			return
		}
	}
	close(s.waiters[0].woken)
	s.waiters = slices.Delete(s.waiters, 0, 1)
}

// wait adds a waiting taker.
func (s *sink) wait() waiter {
	w := waiter{woken: make(chan struct{}), until: s.nextTime()}
	s.waiters = append(s.waiters, w)
	return w
}

// leave takes away a taker that does not wait any longer.
func (s *sink) leave(w waiter) {
	s.waiters = slices.DeleteFunc(s.waiters, func(o waiter) bool { return o.woken == w.woken })
}

// ready tells whether a taker has something to take, or to read.
func (s *sink) ready(now time.Time) bool {
	if s.returned.Len() > 0 || s.suspects.Len() > 0 || s.eligible.Len() > 0 || s.firstFresh() != nil {
		return true
	}
	if d := s.delayed.first(); d != nil && d.pos.at <= now.UnixNano() {
		return true
	}
	if d := s.expiry.first(); d != nil && !d.expiry.After(now) {
		return true
	}
	fresh, delayed := s.wants()
	return (fresh || delayed || s.wantsPark()) && !s.reading
}
