package sink

import "time"

// Event is one event to deliver. It, its body and its headers must not be
// changed; they stay as they are when Deliver has returned.
type Event struct {
	DeliveryID  string // the idempotency key: the same over attempts, restarts and redrives
	ID          string // a ULID
	Source      string // the bare name of the source
	Type        string
	Subject     string // empty: the event has none
	Time        time.Time
	Accepted    time.Time         // when callbackd accepted it
	ContentType string            // empty: the sender gave none
	Body        []byte            // the bytes as received, or what the pipeline's transform made
	Pipeline    string            // the pipeline that routed it here
	Attempt     int               // 1 for the first
	Headers     map[string]string // set by the pipeline's transform, for sinks that send headers

	// perEvent holds the values of the per-event settings by the number of their
	// slot; nil is null.
	perEvent []any
}
