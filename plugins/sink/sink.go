package sink

import (
	"context"
	"time"
)

// Info says what a sink plugin is. Zero numbers mean the daemon's defaults.
type Info struct {
	Name    string // the sink type: the TYPE of sink "TYPE" "NAME"
	Version string // the plugin's own version, say "1.2.0"
	Doc     string // what the sink does, one or a few sentences

	MaxInFlight    int           // deliveries in work at the same time at most
	MaxBatchEvents int           // events in one batch at most
	MaxCalls       int           // batches in work at the same time at most
	Linger         time.Duration // how long the daemon may wait for a batch to fill
}

// Sink delivers events. Deliver is called from several goroutines at the same
// time, Info.MaxInFlight bounds how many; its context ends when the time of this
// one delivery is up. It returns nil when the receiver has the event; an error
// means that the event is tried again, unless it is marked with Permanent,
// RetryAfter or Throttled. The text of the error is kept with the delivery and
// shown to people.
type Sink interface {
	Deliver(ctx context.Context, ev Event) error
}

// BatchSink is a Sink that works through many events at once; its Deliver is
// then not called. DeliverBatch returns one error for each event, in order, and
// nil when all were delivered. At most Info.MaxCalls batches are in work at the
// same time, with 1 never two; none has more than Info.MaxBatchEvents or
// Info.MaxInFlight events. The context ends when the time of one delivery is up.
type BatchSink interface {
	DeliverBatch(ctx context.Context, evs []Event) []error
}

// Checker is a Sink that can tell whether it is able to work at present.
type Checker interface {
	Check(ctx context.Context) error
}

// Closer is a Sink that holds something: files, connections. Close is called
// once, after the last delivery; what it flushes must be flushed when it returns.
type Closer interface {
	Close(ctx context.Context) error
}

// Validator is a config struct that checks itself: for what the types of the
// fields cannot say. Validate has no side effects; callbackd validate runs it,
// and it runs before open. Mistakes are told with Invalid.
type Validator interface {
	Validate() error
}
