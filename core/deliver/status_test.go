package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/plugins/host"
)

// The last failure is told, with since when it goes on, also where no breaker opens,
// until something is delivered.
func TestStatusTellsOfTheLastFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Retry.MinBackoff, s.Retry.MaxBackoff = 10*time.Second, 10*time.Second
		began := time.Now()
		q, sink := newMemQueue(1), newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			r := delivered
			switch {
			case time.Since(began) < time.Second:
				r = host.Result{Outcome: host.OutcomeRetry, Message: "the receiver answered 500"}
			case time.Since(began) < 15*time.Second:
				r = host.Result{Outcome: host.OutcomeRetry, Message: "the receiver answered 502"}
			}
			return all(r)(ctx, batch, result)
		})
		w := run(t, s, q, sink, asIs)
		for _, want := range []struct {
			after     time.Duration
			text      string
			at        time.Duration
			delivered time.Duration
		}{
			{after: time.Second, text: "the receiver answered 500"},
			{after: 11 * time.Second, text: "the receiver answered 502", at: 10 * time.Second},
			{after: 21 * time.Second, delivered: 20 * time.Second},
		} {
			time.Sleep(want.after - time.Since(began))
			synctest.Wait()
			got := w.worker.Status()
			switch f := got.Failure; {
			case want.text == "":
				if f != nil || !got.Delivered.Equal(began.Add(want.delivered)) {
					t.Errorf("after %s: %+v, delivered %s", want.after, f, got.Delivered)
				}
			case f == nil || f.Error != want.text || !f.Since.Equal(began) || !f.At.Equal(began.Add(want.at)) || !got.Delivered.IsZero():
				t.Errorf("after %s: %+v, delivered %s, want %q", want.after, f, got.Delivered, want.text)
			}
		}
		w.end()
	})
}

// A limit of the rate is told of while it holds something back.
func TestStatusTellsOfTheRateLimit(t *testing.T) {
	for _, perSecond := range []float64{0.5, 10, 200} {
		synctest.Test(t, func(t *testing.T) {
			s := settings()
			s.RateLimit = &deliver.Rate{PerSecond: perSecond, Burst: 1}
			q, sink := newMemQueue(int(11*perSecond)), newFakeSink(all(delivered))
			w := run(t, s, q, sink, asIs)
			for range 10 {
				time.Sleep(time.Second)
				synctest.Wait()
				if got := w.worker.Status(); !got.RateLimited || got.RateLimit.PerSecond != perSecond {
					t.Fatalf("at %v/s, while it waits: %+v", perSecond, got)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if got := w.worker.Status(); got.RateLimited {
				t.Errorf("at %v/s, with nothing to deliver: %+v", perSecond, got)
			}
			w.end()
		})
	}
}
