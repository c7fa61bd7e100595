package deliver

import (
	"math/rand/v2"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
)

// MaxRetryAfter is the longest that a sink's word on when to come back is taken
// for, where Retry says no other; a receiver that asks for more is asked again after
// this long.
const MaxRetryAfter = time.Hour

// Retry says when a delivery is tried again and when it is given up.
type Retry struct {
	// MinBackoff is the least wait before the second attempt; the most doubles
	// with each attempt, up to MaxBackoff.
	MinBackoff, MaxBackoff time.Duration
	// MaxAttempts ends a delivery after that many attempts. 0: no bound.
	MaxAttempts int
	// MaxAge ends a delivery that has been pending for longer. 0: no bound.
	MaxAge time.Duration
	// MaxRetryAfter bounds what a sink may ask for, for a delivery and for a
	// pause. 0: the constant MaxRetryAfter.
	MaxRetryAfter time.Duration
}

// asked is how long to wait where the sink asks for that.
func (r Retry) asked(retryAfter time.Duration) time.Duration {
	if r.MaxRetryAfter > 0 {
		return min(retryAfter, r.MaxRetryAfter)
	}
	return min(retryAfter, MaxRetryAfter)
}

// backoff returns the wait before the next attempt: drawn evenly between
// MinBackoff and a bound that doubles with each attempt, so that deliveries that
// failed together do not come back together. random is in [0, 1).
func (r Retry) backoff(attempts int, random float64) time.Duration {
	bound := r.MaxBackoff
	if shift := min(max(attempts, 1), 40); r.MinBackoff < r.MaxBackoff>>shift {
		bound = r.MinBackoff << shift
	}
	return r.MinBackoff + time.Duration(random*float64(max(bound-r.MinBackoff, 0)))
}

// attempted is one attempt that has ended.
type attempted struct {
	leased  *queue.Leased
	outcome event.Outcome
	// reason is set where the attempt itself says that the delivery is dead.
	reason     event.Reason
	message    string
	retryAfter time.Duration
	// uncounted: what ended the attempt says nothing about the delivery (the
	// plugin died, the sink wants less), so it does not count against
	// max_attempts.
	uncounted bool
	// untried: the sink never got it.
	untried bool
	// inDoubt: the plugin may still be at it.
	inDoubt bool
	// died: the plugin died before there was a result; alone: nothing else was in
	// flight then.
	died, alone bool
	// suspicion is what is left of it, or came of it. A result leaves none.
	suspicion queue.Suspicion
}

// judges: it says something about the sink as a whole.
func (a *attempted) judges() bool {
	return !a.uncounted && !a.untried && a.outcome != event.OutcomeThrottled
}

// settle turns an ended attempt into done, retry or dead letter.
func (r Retry) settle(a attempted, now time.Time, random float64) queue.Settlement {
	s := queue.Settlement{Lease: a.leased.Lease, Attempts: a.leased.Attempts + 1}
	if a.uncounted {
		s.Attempts--
	}
	if a.outcome == event.OutcomeDelivered {
		s.Delivered = true
		return s
	}
	if a.outcome == event.OutcomeRejected {
		s.Dead = &event.Death{Reason: a.reason, Error: event.CutError(a.message)}
		return s
	}
	if a.died && !a.alone {
		// Alone, and soon, it will show which of them it was. Until then none of
		// them ends, however old.
		s.Retry, s.Suspicion = &queue.Retry{At: now, Error: event.CutError(a.message)}, a.suspicion
		return s
	}
	failures := s.Attempts
	if a.died {
		failures += a.suspicion.Crashes
	}
	due := now.Add(max(r.backoff(failures, random), r.asked(a.retryAfter)))
	expiry := a.leased.Since.Add(r.MaxAge)
	if r.MaxAge > 0 && due.After(expiry) {
		due = expiry // one last attempt: it has the whole of its time
	}
	switch {
	case a.died && a.suspicion.Alone >= convictedAfter:
		s.Dead = &event.Death{Reason: event.ReasonCrashed, Error: event.CutError(a.message)}
	case r.MaxAttempts > 0 && s.Attempts >= r.MaxAttempts && !a.uncounted:
		s.Dead = &event.Death{Reason: event.ReasonExhausted, Error: event.CutError(a.message)}
	case r.MaxAge > 0 && !now.Before(expiry):
		s.Dead = &event.Death{Reason: event.ReasonExpired, Error: event.CutError(a.message)}
	default:
		s.Retry, s.Suspicion = &queue.Retry{At: due, Error: event.CutError(a.message)}, a.suspicion
	}
	return s
}

func random() float64 { return rand.Float64() }
