// Package queue keeps accepted events on disk until every delivery of them is
// settled. It is the only package that knows a storage engine.
//
// It promises: when Append has returned nil, the event and its deliveries
// survive kill -9 and a power cut; every delivery is handed out by Take until it
// is settled as delivered or dead, at least once; a dead letter is kept. It must
// not know what a sink, a pipeline or a retry policy is beyond their names and
// times.
package queue

import (
	"context"
	"errors"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/oklog/ulid/v2"
)

var (
	// ErrFull says that the queue has no room: its byte limit or the free-space
	// reserve of its disk was reached. Room may come back.
	ErrFull = errors.New("queue is full")
	// ErrFailed says that the store failed and takes nothing any more. The
	// process has to be restarted.
	ErrFailed = errors.New("queue has failed")
	// ErrStale says that a lease is not held any more: it ran out, or the
	// delivery was settled already.
	ErrStale = errors.New("lease is stale")
	// ErrUnknown says that there is no such dead letter.
	ErrUnknown = errors.New("no such dead letter")
	// ErrClosed says that the queue was closed.
	ErrClosed = errors.New("queue is closed")
)

// Queue is a queue engine. Its methods may be called from any goroutine. It does
// not assume that the process that appends is the one that takes.
type Queue interface {
	// Append keeps an event with its deliveries, in one synced commit. On
	// ErrFull, ErrClosed, or ctx's error while the commit had not begun, nothing
	// was accepted; after ErrFailed nobody knows: the event may be there after
	// the restart. An event without routes is not kept.
	Append(ctx context.Context, ev *event.Event, routes []event.Route) error

	// AppendOnce is Append for an event of which others may tell the same: only
	// the first one with the key is kept, for as long as its window. It returns
	// the id of the first one: that of ev, or of an earlier one, which is on disk
	// then. The key of an event without routes is remembered too.
	AppendOnce(ctx context.Context, ev *event.Event, routes []event.Route, once event.Once) (first ulid.ULID, err error)

	// Take waits until deliveries of the sink are due and leases up to the
	// limits of want of them, in the order of acceptance as far as they are
	// fresh; ones that are tried again come when they are due. Of those with the
	// same order key, one comes when all that were accepted before it are settled
	// as delivered or dead; other keys do not wait for it. A suspect, one
	// that has a suspicion, comes in a batch of its own; want says whether before
	// others that are due or after them. It returns at least one, or an error:
	// ctx's, ErrFailed, ErrClosed.
	Take(ctx context.Context, sink string, want Want) ([]Leased, error)

	// Settle ends leases. Settling twice is no harm. What a settlement changes
	// survives kill -9 of the process as a whole or not at all; one that moves
	// to the dead letters is synced before Settle returns. The error joins an
	// ErrStale for each lease that was not held any more; the others are
	// settled all the same.
	Settle(ctx context.Context, settlements []Settlement) error

	// Extend gives leases that are still held another time of by, from now. The error joins an ErrStale for each that was not.
	Extend(ctx context.Context, leases []Lease, by time.Duration) error

	// DeadLetters calls f with the dead letters that the filter lets through,
	// oldest first, until it returns false.
	DeadLetters(ctx context.Context, filter Filter, f func(DeadLetter) bool) error

	// DeadLetter returns the dead letter of a delivery by the delivery's id, or
	// ErrUnknown.
	DeadLetter(ctx context.Context, id string) (DeadLetter, error)

	// Redrive makes dead letters pending: with no attempts, no age and no order,
	// due at once. It tells how many it found; one that is not a dead letter any
	// more is left alone. It stops, without an error, before one for which its
	// sink has no room. Synced.
	Redrive(ctx context.Context, letters []DeadKey) (found int, err error)

	// Discard removes dead letters for good, and tells how many it found. Synced.
	Discard(ctx context.Context, letters []DeadKey) (found int, err error)

	// Configure says which sinks there are and how much may be kept for each. It
	// holds from the next Append on; for what is kept already, it is not undone.
	Configure(sinks map[string]Limits)

	// Keep keeps a note under a name, synced, instead of the one that was there;
	// nil: none any more. Notes reads all of them. A note is small: what its
	// owner has to know after a restart.
	Keep(ctx context.Context, name string, note []byte) error
	Notes(ctx context.Context) (map[string][]byte, error)

	// Stats tells what the queue holds. It is cheap enough for every scrape.
	Stats() Stats

	// Close ends all waiting calls with ErrClosed and closes the store.
	Close() error
}

// Want limits what Take hands out.
type Want struct {
	// MaxEvents and MaxBytes bound a batch; a single event may exceed MaxBytes.
	MaxEvents int
	MaxBytes  int
	// Lease is how long the deliveries are the taker's alone.
	Lease time.Duration
	// SuspectsFirst: where suspects and others are due, a suspect is handed out.
	// Else the others are.
	SuspectsFirst bool
}

// Lease is the right to settle a delivery. Opaque.
type Lease struct {
	Sink  string
	Seq   uint64
	Index uint32
	Token uint64
}

// Leased is a delivery that was handed out.
type Leased struct {
	Lease Lease
	Event *event.Event
	// Pipeline routed the event to the sink.
	Pipeline string
	// Attempts is how many attempts ended before this one.
	Attempts int
	// Since is when the delivery became pending: when its event was accepted,
	// or when it was redriven.
	Since time.Time
	// Suspicion is what the last settlement of it kept.
	Suspicion Suspicion
	// Ordered: it has an order key: the next one of its key is handed out when this
	// one is settled for good.
	Ordered bool
}

// Suspicion is what a worker knows of a delivery that was in flight when the
// sink's process died, kept so that it survives a restart. The zero value is
// none.
type Suspicion struct {
	// Crashes is how many times the process died with it, so far.
	Crashes int
	// Alone is how many of them speak against it, because it was alone.
	Alone int
	// Delivered is what SinkStats.Delivered was when Alone last grew.
	Delivered int64
}

// Suspect tells whether there is a suspicion.
func (s Suspicion) Suspect() bool { return s.Crashes > 0 }

// Settlement ends a lease. Exactly one of Delivered, Drop, Retry and Dead is set.
type Settlement struct {
	Lease Lease
	// Delivered: done.
	Delivered bool
	// Drop: over, and neither delivered nor dead, because an operator wants it so.
	// The next one of its order key goes on.
	Drop bool
	// Retry: to be handed out again.
	Retry *Retry
	// Dead: to become a dead letter.
	Dead *event.Death
	// Attempts is how many attempts ended, this one included. A lease given
	// back without an attempt keeps the number it had.
	Attempts int
	// Suspicion is what is kept with a Retry. A lease given back without an
	// attempt keeps the one it had.
	Suspicion Suspicion
}

// Retry says when a delivery is due again.
type Retry struct {
	At time.Time
	// Error is why the attempt failed, at most event.MaxErrorLen bytes.
	Error string
}

// WhenFull is what becomes of a delivery that the backlog of its sink has no room
// for.
type WhenFull uint8

const (
	// BuryNew makes a dead letter of it, reason overflow.
	BuryNew WhenFull = iota
	// RefuseNew refuses its whole event: Append returns ErrFull.
	RefuseNew
	// DropOldest drops the sink's oldest ones that are not handed out: those never
	// tried first, then those to be tried again; the new one where there are
	// none.
	DropOldest
)

// Limits bound what is kept for one sink. Zero values: no bound.
type Limits struct {
	// MaxBacklog bounds the bytes of its deliveries that are not settled.
	MaxBacklog int64
	WhenFull   WhenFull
	// DeadMaxAge and DeadMaxBytes bound its dead letters: the oldest go first.
	DeadMaxAge   time.Duration
	DeadMaxBytes int64
}

// Watcher is told of what a queue ends by itself, after it is committed. It must
// return soon, and not use the queue.
type Watcher interface {
	// DeadLetter: a delivery was a dead letter from the start: its route was dead,
	// or there was no room for it.
	DeadLetter(sink string, reason event.Reason)
	// Dropped: deliveries were dropped for newer ones.
	Dropped(sink string, n int)
	// Discarded: dead letters were removed, because of their age, or else because
	// of the bytes of all of them.
	Discarded(sink string, aged bool, n int)
}

// DeadKey finds a dead letter. They are ordered by time; see Compare.
type DeadKey struct {
	Sink string
	// Died is when it became a dead letter, in nanoseconds since 1970.
	Died  int64
	Seq   uint64
	Index uint32
}

// Filter says which dead letters are meant. Zero values: all.
type Filter struct {
	Sink, Pipeline string
	Reason         event.Reason
	// Type is the event's.
	Type string
	// From and Until bound when they died, From included, Until not.
	From, Until time.Time
	// After leaves out those up to this one, in the order of DeadLetters.
	After DeadKey
}

// DeadLetter is a delivery that is not tried again by itself.
type DeadLetter struct {
	Key            DeadKey
	ID             string // the delivery's
	EventID        ulid.ULID
	Event          *event.Event
	Pipeline, Sink string
	event.Death
	Attempts int
	// Accepted is when the event was accepted, Died when the delivery became a
	// dead letter.
	Accepted, Died time.Time
}

// Stats is what a queue holds.
type Stats struct {
	// Bytes that the queue counts against LimitBytes: events that have a
	// delivery or a dead letter left, with their keys.
	Bytes, LimitBytes int64
	// NoRoom is why events are refused at present; empty: they are not.
	NoRoom []NoRoom
	// Sinks by name: those that are configured and those that something is kept
	// for.
	Sinks map[string]SinkStats
}

// SinkStats is what a queue holds for one sink.
type SinkStats struct {
	// Pending are due and wait to be taken, InFlight are leased, Delayed are to
	// be tried again later.
	Pending, InFlight, Delayed int64
	// Dead letters.
	Dead int64
	// Delivered is how many were ever settled as delivered. It may fall behind by
	// what a settlement may: a power cut undoes the last moments.
	Delivered int64
	// Bytes of what is kept for pending, leased and delayed ones, with the events
	// that they refer to; MaxBacklog bounds it, 0: nothing does.
	Bytes, MaxBacklog int64
	// WhenFull says what becomes of what there is no room for.
	WhenFull WhenFull
	// BlockedKeys is how many order keys are held up by a delivery that is to be
	// tried again, or that waited for such a one. Behind is how many deliveries
	// wait for their turn there; of those that are on disk only, it counts those
	// that were put aside.
	BlockedKeys, Behind int64
	// NextDue is when the first of those comes that are in memory and to be tried
	// again later, where none can be handed out before. Zero: one can, or there is
	// none.
	NextDue time.Time
	// DeadBytes is what Bytes is, for dead letters.
	DeadBytes int64
	// Configured is false for a sink that is not in the configuration: its
	// deliveries wait for it to come back, or to be discarded.
	Configured bool
	// OldestPending is when the oldest delivery that is not settled became
	// pending, leased and delayed ones included. Zero: there is none.
	OldestPending time.Time
}
