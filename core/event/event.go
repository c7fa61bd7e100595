// Package event holds what callbackd moves: the event, the delivery of an event
// to a sink, the outcome of an attempt. Pure data: nothing here reads a clock, a
// file or a socket, and nothing here knows how events are stored, routed or
// sent.
package event

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
)

// Event is the immutable record of one accepted callback. Its attributes are
// those of CloudEvents 1.0. Nobody may change an event, or the bytes of its
// body, once it was made.
type Event struct {
	// ID identifies the event; it is the "id" that the sender is answered.
	ID ulid.ULID
	// Source is the bare name of the source that accepted the callback.
	Source string
	// Type says what happened, in the sender's words.
	Type string
	// Subject is what it happened to. Empty: the event has none.
	Subject string
	// Time is when it happened, to the millisecond: the sender's time where the
	// source knows it, else Accepted.
	Time time.Time
	// Accepted is when the callback arrived.
	Accepted time.Time
	// RemoteAddr is the address of the sender, without its port.
	RemoteAddr string
	// ContentType is the Content-Type header as it came, else empty.
	ContentType string
	// Headers are the callback's other headers: lower-case names, first values,
	// sorted by name, without those that can hold a secret.
	Headers Pairs
	// Query is the callback's query: first values, sorted by name, without what
	// can hold a secret.
	Query Pairs
	// Body is the callback's body, byte for byte.
	Body []byte
}

// Pair is a name with its value.
type Pair struct{ Name, Value string }

// Pairs are names with values, sorted by name, each name once.
type Pairs []Pair

// Get returns the value of name, and whether there is one.
func (p Pairs) Get(name string) (string, bool) {
	for i := range p {
		if p[i].Name == name {
			return p[i].Value, true
		}
	}
	return "", false
}

// Route is one (pipeline, sink) that an event goes to.
type Route struct {
	Pipeline, Sink string
	// Order is the order key of the delivery, as OrderKey makes it: deliveries of
	// one sink with the same key go one after another. 0: no order.
	Order uint64
	// Dead is set where routing itself failed: the delivery then starts out as a
	// dead letter. Nil: it is to be delivered.
	Dead *Death
}

// OrderKey returns the order key for the value of a sink's order_by; never 0. Two
// values with the same key, one pair in 2^64, are delivered in order too, which
// does no harm.
func OrderKey(value string) uint64 {
	sum := sha256.Sum256([]byte(value))
	return max(binary.BigEndian.Uint64(sum[:8]), 1)
}

// Once says that a callback is one of those that come several times: of events
// with the same source and key, only the first within the window is kept.
type Once struct {
	// Key is what the source's dedupe block makes of the callback. Never empty.
	Key string
	// Window is how long the key is remembered from the first event on.
	Window time.Duration
}

// Death says why a delivery is a dead letter.
type Death struct {
	Reason Reason
	// Error is the last error, for people, at most MaxErrorLen bytes.
	Error string
}

// MaxErrorLen is how many bytes of an error's text are kept with a delivery.
const MaxErrorLen = 4 << 10

// CutError cuts the text of an error to MaxErrorLen bytes of valid UTF-8.
func CutError(text string) string {
	if len(text) > MaxErrorLen {
		text = text[:MaxErrorLen]
	}
	return strings.ToValidUTF8(text, "?") // never longer than what it replaces
}

// Reason is why a delivery became a dead letter. The set is closed.
type Reason string

// The reasons.
const (
	// ReasonRejected: the sink said that trying again is of no use.
	ReasonRejected Reason = "rejected"
	// ReasonExhausted: retry.max_attempts was reached.
	ReasonExhausted Reason = "exhausted"
	// ReasonExpired: retry.max_age was reached.
	ReasonExpired Reason = "expired"
	// ReasonRender: a transform or a per-event attribute failed.
	ReasonRender Reason = "render"
	// ReasonRoute: the pipeline's match failed.
	ReasonRoute Reason = "route"
	// ReasonOverflow: the sink's backlog was full.
	ReasonOverflow Reason = "overflow"
	// ReasonCrashed: the plugin died of it, again and again.
	ReasonCrashed Reason = "crashed"
)

// Reasons lists all reasons, for metrics that exist from the start.
func Reasons() []Reason {
	return []Reason{
		ReasonRejected, ReasonExhausted, ReasonExpired, ReasonRender,
		ReasonRoute, ReasonOverflow, ReasonCrashed,
	}
}

// Outcome is what became of an attempt.
type Outcome string

// The outcomes.
const (
	// OutcomeDelivered: the sink has it.
	OutcomeDelivered Outcome = "delivered"
	// OutcomeRetry: it is to be tried again.
	OutcomeRetry Outcome = "retry"
	// OutcomeThrottled: it is to be tried again, and the sink wants less.
	OutcomeThrottled Outcome = "throttled"
	// OutcomeRejected: trying again is of no use.
	OutcomeRejected Outcome = "rejected"
)

// Outcomes lists all outcomes, for metrics that exist from the start.
func Outcomes() []Outcome {
	return []Outcome{OutcomeDelivered, OutcomeRetry, OutcomeThrottled, OutcomeRejected}
}

// DeliveryID is the id of the delivery of an event to a sink for a pipeline:
// "<event id>_<12 hex of a hash over the length-prefixed pipeline and sink
// names>". It is the same over attempts, restarts and redrives, and is the
// idempotency key that sinks pass on.
func DeliveryID(id ulid.ULID, pipeline, sink string) string {
	h := make([]byte, 0, 128)
	h = binary.AppendUvarint(h, uint64(len(pipeline)))
	h = append(h, pipeline...)
	h = binary.AppendUvarint(h, uint64(len(sink)))
	h = append(h, sink...)
	sum := sha256.Sum256(h)
	var out [ulid.EncodedSize + 1 + 12]byte
	_ = id.MarshalTextTo(out[:ulid.EncodedSize]) // fails only on a wrong length
	out[ulid.EncodedSize] = '_'
	hex.Encode(out[ulid.EncodedSize+1:], sum[:6])
	return string(out[:])
}
