// Package deliver hands the deliveries of a sink to it, again and again until
// each is settled: it takes what is due as a batch, renders it, passes it to the
// sink, and turns each result into done, retry or dead letter.
//
// It promises that a sink gets every delivery at least once, that no attempt is
// spent while the sink is known to be down, that a sink never has more in flight, or
// more attempts a second, than it was allowed, and that an event which kills the
// plugin is the only one to suffer for it: what was in flight becomes suspect, and a
// suspect is tried with nothing else in flight. It must not know how deliveries are
// stored, how a sink is run, or what a setting means; one Worker knows nothing of
// another.
//
// A sink that fails, or wants to be left alone, is left alone while its deliveries
// wait in the queue: Breaker says when. One that comes back, by the breaker, after
// its plugin was away, or after a pause that it asked for, gets its backlog by a
// ramp.
//
// A delivery with an order key holds up the next one of its key until it is settled
// for good, so it does not become a dead letter by an attempt that may still be
// under way: a call whose time is over is cancelled, but the plugin is not asked
// whether it has stopped. Such a delivery is tried again, however old and however
// often, until the plugin gives a result for it or ends the call, or until the
// process is gone that may still be at it. Other keys do not wait for that.
package deliver

import (
	"context"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

// Queue is where deliveries come from; see queue.Queue for the contract.
type Queue interface {
	Take(ctx context.Context, sink string, want queue.Want) ([]queue.Leased, error)
	Settle(ctx context.Context, settlements []queue.Settlement) error
	Extend(ctx context.Context, leases []queue.Lease, by time.Duration) error
	Stats() queue.Stats
}

// Sink is what a Worker delivers to; see host.Sink for the contract.
type Sink interface {
	WaitReady(ctx context.Context) error
	Deliver(ctx context.Context, batch host.Batch, result func(host.Result)) error
	// State tells by Restarts which process gets the deliveries: where it has
	// grown, nothing is left of the one before.
	State() host.State
}

// Render says what the sink receives of an event for a pipeline. An error makes
// the delivery a dead letter.
type Render func(v *event.View, pipeline string) (pipeline.Rendered, error)

// Settings of a Worker. All of them must be set, unless they say what zero means.
type Settings struct {
	// Sink is the sink's name.
	Sink string
	// Timeout is how long one delivery may take.
	Timeout time.Duration
	// MaxInFlight bounds the deliveries, MaxCalls the batches that the sink has
	// at the same time.
	MaxInFlight, MaxCalls int
	// MaxBatchEvents and MaxBatchBytes bound a batch.
	MaxBatchEvents, MaxBatchBytes int
	// Linger is how long to wait for more before a batch that is not full is
	// handed over. 0: never.
	Linger time.Duration
	Retry  Retry
	// RateLimit bounds the attempts, all calls together. Nil: nothing does.
	RateLimit *Rate
	// Breaker's zero value is none.
	Breaker Breaker
	// Grace is how long what is in flight may take to finish once the Worker is
	// to stop.
	Grace time.Duration
}
