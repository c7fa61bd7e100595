// Package deliver hands the deliveries of a sink to it, again and again until
// each is settled: it takes what is due as a batch, renders it, passes it to the
// sink, and turns each result into done, retry or dead letter.
//
// It promises that a sink gets every delivery at least once, that no attempt is
// spent while the sink is known to be down, that a sink never has more in flight
// than it was allowed, and that an event which kills the plugin is the only one to
// suffer for it: what was in flight becomes suspect, and a suspect is tried with
// nothing else in flight. It must not know how deliveries are stored, how a
// sink is run, or what a setting means; one Worker knows nothing of another.
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
}

// Render says what the sink receives of an event for a pipeline. An error makes
// the delivery a dead letter.
type Render func(v *event.View, pipeline string) (pipeline.Rendered, error)

// Settings of a Worker. All of them must be set.
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
	// Grace is how long what is in flight may take to finish once the Worker is
	// to stop.
	Grace time.Duration
}
