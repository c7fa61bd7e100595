package sink

import (
	"errors"
	"time"
)

// Outcome is what became of an attempt to deliver an event.
type Outcome string

// The outcomes.
const (
	OutcomeDelivered Outcome = "delivered" // the receiver has it
	OutcomeRetry     Outcome = "retry"     // it is to be tried again
	OutcomeThrottled Outcome = "throttled" // it is to be tried again, and the receiver wants less
	OutcomeRejected  Outcome = "rejected"  // trying again is of no use
)

// OutcomeOf tells what the daemon makes of an error that Deliver returned, and
// how much later at the earliest it tries again (0: as the sink's retry settings
// say). Of several marks on one error the outermost counts.
func OutcomeOf(err error) (Outcome, time.Duration) {
	if err == nil {
		return OutcomeDelivered, 0
	}
	if marked, ok := errors.AsType[*outcomeError](err); ok {
		return marked.outcome, marked.after
	}
	return OutcomeRetry, 0
}

// Permanent marks an error of Deliver: trying the event again is of no use. It
// becomes a dead letter. Permanent(nil) is nil.
func Permanent(err error) error { return mark(err, OutcomeRejected, 0) }

// RetryAfter marks an error of Deliver: the event is to be tried again, not
// before d has passed. RetryAfter(nil, d) is nil.
func RetryAfter(err error, d time.Duration) error { return mark(err, OutcomeRetry, d) }

// Throttled marks an error of Deliver: the receiver wants less. The event is
// tried again, not before d has passed, and the daemon slows the whole sink
// down. Throttled(nil, d) is nil.
func Throttled(err error, d time.Duration) error { return mark(err, OutcomeThrottled, d) }

type outcomeError struct {
	err     error
	outcome Outcome
	after   time.Duration
}

func mark(err error, outcome Outcome, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &outcomeError{err: err, outcome: outcome, after: max(after, 0)}
}

func (e *outcomeError) Error() string { return e.err.Error() }
func (e *outcomeError) Unwrap() error { return e.err }
