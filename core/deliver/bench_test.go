package deliver_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// endless is a queue of n deliveries that costs next to nothing.
type endless struct {
	event *event.Event
	done  chan struct{} // closed when all are settled

	mu         sync.Mutex
	next, left int
}

func (q *endless) Take(ctx context.Context, _ string, want queue.Want) ([]queue.Leased, error) {
	q.mu.Lock()
	n := min(want.MaxEvents, q.next)
	q.next -= n
	seq := uint64(q.next)
	q.mu.Unlock()
	if n == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := make([]queue.Leased, n)
	for i := range out {
		out[i] = queue.Leased{Lease: queue.Lease{Sink: "out", Seq: seq + uint64(i)}, Event: q.event, Pipeline: "p", Since: q.event.Accepted}
	}
	return out, nil
}

func (q *endless) Settle(_ context.Context, settlements []queue.Settlement) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range settlements {
		if settlements[i].Delivered {
			q.left--
		} else {
			q.next++
		}
	}
	if q.left == 0 {
		close(q.done)
		q.left = -1
	}
	return nil
}

func (q *endless) Extend(context.Context, []queue.Lease, time.Duration) error { return nil }
func (q *endless) Stats() queue.Stats                                         { return queue.Stats{} }

// BenchmarkWorker is what the worker itself costs: for each delivery, with a queue
// and a sink that cost next to nothing.
func BenchmarkWorker(b *testing.B) {
	limited := withBreaker()
	limited.RateLimit = &deliver.Rate{PerSecond: 1e9, Burst: 1e9}
	without := withBreaker()
	without.Breaker = deliver.Breaker{}
	for _, c := range []struct {
		name     string
		settings deliver.Settings
	}{{"breaker", withBreaker()}, {"nothing", without}, {"breaker and rate limit", limited}} {
		b.Run(c.name, func(b *testing.B) {
			now := time.Now()
			q := &endless{
				event: &event.Event{ID: ulid.MustNew(1, noEntropy{}), Source: "s", Type: "t", Time: now, Accepted: now, Body: make([]byte, 350)},
				done:  make(chan struct{}), next: b.N, left: b.N,
			}
			metrics := deliver.NewMetrics(prometheus.NewRegistry()).Sink("out")
			w := deliver.NewWorker(c.settings, q, newFakeSink(all(delivered)), asIs, metrics, slog.New(slog.DiscardHandler))
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- w.Run(ctx) }()
			<-q.done
			b.StopTimer()
			cancel()
			if err := <-ended; err != nil {
				b.Error(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
