package deliver_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDeliversInBatchesAndCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, sink := newMemQueue(40), newFakeSink(all(delivered))
		w := run(t, settings(), q, sink, asIs)
		synctest.Wait()
		w.end()
		check(t, q, map[string]int{"delivered": 40})
		first := slices.IndexFunc(sink.calls, func(c []host.Delivery) bool { return string(c[0].Event.Body) == "event 0" })
		if first < 0 || len(sink.calls[first]) != 16 {
			t.Fatalf("no batch of 16 begins with the first event: %v", sink.calls)
		}
		d := sink.calls[first][0]
		if d.ID != event.DeliveryID(ulid.MustParse(d.Event.ID), "p", "out") || d.Attempt != 1 || d.Pipeline != "p" || string(d.Event.Body) != "event 0" {
			t.Errorf("first delivery: %+v", d)
		}
		w.metric("callbackd_attempts_total", 40, "outcome=delivered", "sink=out")
		w.metric("callbackd_deliveries_total", 40, "result=delivered", "sink=out")
		w.metric("callbackd_deliveries_total", 0, "result=dead", "sink=out")
		w.metric("callbackd_delivery_lag_seconds", 40, "sink=out")
		w.metric("callbackd_attempt_duration_seconds", 40, "sink=out")
	})
}

func TestRetryBacksOffAndIsDeliveredAtLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := all(host.Result{Outcome: host.OutcomeRetry, Message: "down"})
		q, sink := newMemQueue(1), newFakeSink(inTurn(fail, fail, fail, all(delivered)))
		w := run(t, settings(), q, sink, asIs)
		time.Sleep(5 * time.Minute)
		w.end()
		check(t, q, map[string]int{"retry": 3, "delivered": 1})
		for i, bounds := range [][2]time.Duration{{time.Second, 2 * time.Second}, {time.Second, 4 * time.Second}, {time.Second, 8 * time.Second}} {
			if wait := sink.times[i+1].Sub(sink.times[i]); wait < bounds[0] || wait > bounds[1] {
				t.Errorf("wait before attempt %d was %v, want %v", i+2, wait, bounds)
			}
			if got := sink.calls[i+1][0].Attempt; got != i+2 {
				t.Errorf("attempt number %d, want %d", got, i+2)
			}
		}
		w.metric("callbackd_attempts_total", 3, "outcome=retry", "sink=out")
	})
}

func TestDeadLetters(t *testing.T) {
	fail := all(host.Result{Outcome: host.OutcomeRetry, Message: "down"})
	attempts, age := settings(), settings()
	attempts.Retry.MaxAttempts = 3
	age.Retry.MaxAge = 10 * time.Second
	boom := func(*event.View, string) (pipeline.Rendered, error) { return pipeline.Rendered{}, errors.New("boom") }
	for _, c := range []struct {
		name     string
		settings deliver.Settings
		deliver  func(context.Context, host.Batch, func(host.Result)) error
		render   deliver.Render
		want     event.Death
		attempts int
	}{
		{"rejected", settings(), all(host.Result{Outcome: host.OutcomeRejected, Message: "no such channel"}), asIs, event.Death{Reason: event.ReasonRejected, Error: "no such channel"}, 1},
		{"exhausted", attempts, fail, asIs, event.Death{Reason: event.ReasonExhausted, Error: "down"}, 3},
		{"expired", age, fail, asIs, event.Death{Reason: event.ReasonExpired, Error: "down"}, 0},
		{"render", settings(), all(delivered), boom, event.Death{Reason: event.ReasonRender, Error: "boom"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, sink := newMemQueue(1), newFakeSink(c.deliver)
				w := run(t, c.settings, q, sink, c.render)
				time.Sleep(time.Minute)
				w.end()
				last := q.settled[len(q.settled)-1]
				if last.Dead == nil || *last.Dead != c.want {
					t.Errorf("settled %+v, want dead %+v", last, c.want)
				}
				if c.attempts > 0 && last.Attempts != c.attempts {
					t.Errorf("%d attempts, want %d", last.Attempts, c.attempts)
				}
				w.metric("callbackd_dead_letters_total", 1, "reason="+string(c.want.Reason), "sink=out")
				w.metric("callbackd_deliveries_total", 1, "result=dead", "sink=out")
			})
		})
	}
}

func TestAThrottledSinkIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := all(host.Result{Outcome: host.OutcomeThrottled, RetryAfter: 20 * time.Second})
		q, sink := newMemQueue(1), newFakeSink(inTurn(throttle, all(delivered)))
		w := run(t, settings(), q, sink, asIs)
		time.Sleep(time.Second)
		q.add("another one, not throttled itself")
		time.Sleep(time.Minute)
		w.end()
		if wait := sink.times[1].Sub(sink.times[0]); wait < 20*time.Second {
			t.Errorf("the sink was called again after %v, it asked for 20 s", wait)
		}
		if got := q.ended()["delivered"]; got != 2 {
			t.Errorf("%d delivered, want 2", got)
		}
		if got := q.settled[0]; got.Retry == nil || got.Attempts != 0 {
			t.Errorf("the throttled attempt was settled as %+v, want one that does not count", got)
		}
	})
}

func TestPausesGrowWhileTheSinkThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		throttle := all(host.Result{Outcome: host.OutcomeThrottled})
		q, sink := newMemQueue(1), newFakeSink(inTurn(throttle, throttle, throttle, throttle, throttle, all(delivered)))
		w := run(t, settings(), q, sink, asIs)
		time.Sleep(10 * time.Minute)
		w.end()
		check(t, q, map[string]int{"retry": 5, "delivered": 1})
		for i, least := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second} {
			if wait := sink.times[i+1].Sub(sink.times[i]); wait < least {
				t.Errorf("pause %d was %v, want at least %v", i+1, wait, least)
			}
		}
	})
}

func TestNothingExpiresBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Retry.MaxAge = 30 * time.Minute
		q := newMemQueue(1)
		sink := newFakeSink(all(host.Result{Outcome: host.OutcomeRetry, RetryAfter: time.Hour, Message: "later"}))
		w := run(t, s, q, sink, asIs)
		time.Sleep(2 * time.Hour)
		w.end()
		check(t, q, map[string]int{"retry": 1, "expired": 1})
		if last := sink.times[1].Sub(sink.times[0]); last != 30*time.Minute {
			t.Errorf("the last attempt was made after %v, want at max_age", last)
		}
	})
}

func TestALargeBacklogOfLargeBodiesIsTakenInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.MaxBatchBytes, s.MaxCalls = 24<<20, 64
		q := newMemQueue(0)
		large := strings.Repeat("x", 10<<20)
		for range 12 {
			q.add(large)
		}
		hang := func(ctx context.Context, _ host.Batch, _ func(host.Result)) error { <-ctx.Done(); return ctx.Err() }
		sink := newFakeSink(hang)
		w := run(t, s, q, sink, asIs)
		time.Sleep(time.Second)
		sink.mu.Lock()
		events := sink.events
		sink.mu.Unlock()
		if events < 6 || events > 7 {
			t.Errorf("%d deliveries of 10 MiB are in flight, want what 64 MiB hold", events)
		}
		w.end()
	})
}

func TestAPanicInRenderingIsThatDeliverysAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(3)
		w := run(t, settings(), q, newFakeSink(all(delivered)), func(v *event.View, p string) (pipeline.Rendered, error) {
			if string(v.Event.Body) == "event 1" {
				panic("boom")
			}
			return asIs(v, p)
		})
		synctest.Wait()
		w.end()
		check(t, q, map[string]int{"delivered": 2, "render": 1})
	})
}

func TestRetryAfterIsHonouredAndClamped(t *testing.T) {
	for _, c := range []struct{ asked, least, most time.Duration }{
		{10 * time.Minute, 10 * time.Minute, 11 * time.Minute},
		{1000 * time.Hour, deliver.MaxRetryAfter, deliver.MaxRetryAfter + time.Minute},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := settings()
			s.Retry.MaxAge = 0
			q, sink := newMemQueue(1), newFakeSink(inTurn(all(host.Result{Outcome: host.OutcomeRetry, RetryAfter: c.asked}), all(delivered)))
			w := run(t, s, q, sink, asIs)
			time.Sleep(2 * time.Hour)
			w.end()
			if wait := sink.times[1].Sub(sink.times[0]); wait < c.least || wait > c.most {
				t.Errorf("asked for %v, came back after %v", c.asked, wait)
			}
		})
	}
}

func TestWhatEndsAnAttemptWithoutAResult(t *testing.T) {
	for _, c := range []struct {
		name    string
		err     error
		counted int // attempts that count against max_attempts
	}{
		{"crash", host.ErrCrashed, 0},
		{"not ready", host.ErrNotReady, 0},
		{"timeout", host.ErrTimeout, 1},
		{"stopped", host.ErrStopped, 0},
		{"results are missing", host.ErrIncomplete, 1},
		{"the plugin refused the call", errors.New("unimplemented"), 1},
		{"no result and no error", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, sink := newMemQueue(3), newFakeSink(inTurn(noResult(c.err), all(delivered)))
				w := run(t, settings(), q, sink, asIs)
				time.Sleep(time.Minute)
				w.end()
				check(t, q, map[string]int{"retry": 3, "delivered": 3})
				if got := q.settled[0].Attempts; got != c.counted {
					t.Errorf("%d attempts counted, want %d", got, c.counted)
				}
			})
		})
	}
}

func TestABatchThatIsTooLargeIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			if len(batch.Deliveries) > 2 || string(batch.Deliveries[0].Event.Body) == "event 5" {
				return host.ErrTooLarge
			}
			return all(delivered)(ctx, batch, result)
		})
		q := newMemQueue(11)
		w := run(t, settings(), q, sink, asIs)
		synctest.Wait()
		w.end()
		check(t, q, map[string]int{"delivered": 10, "rejected": 1})
	})
}

func TestNothingIsTakenWhileTheSinkIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, sink := newMemQueue(5), newFakeSink(all(delivered))
		sink.ready = make(chan struct{})
		w := run(t, settings(), q, sink, asIs)
		time.Sleep(time.Hour)
		check(t, q, map[string]int{})
		close(sink.ready)
		synctest.Wait()
		w.end()
		check(t, q, map[string]int{"delivered": 5})
	})
}

func TestNeverMoreInFlightThanAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.MaxInFlight, s.MaxCalls, s.MaxBatchEvents = 20, 3, 8
		var n atomic.Int64
		sink := newFakeSink(func(_ context.Context, batch host.Batch, result func(host.Result)) error {
			for i := range batch.Deliveries {
				time.Sleep(time.Duration(n.Add(1)%7) * 100 * time.Millisecond)
				result(host.Result{Index: i, Outcome: host.OutcomeDelivered})
			}
			return nil
		})
		q := newMemQueue(500)
		w := run(t, s, q, sink, asIs)
		time.Sleep(10 * time.Minute)
		w.end()
		check(t, q, map[string]int{"delivered": 500})
		if sink.maxOpen > 3 || sink.maxOpen < 2 {
			t.Errorf("%d calls at once, want up to 3", sink.maxOpen)
		}
		if sink.maxEvents > 20 || sink.maxEvents < 16 {
			t.Errorf("%d deliveries in flight, want up to 20", sink.maxEvents)
		}
	})
}

func TestOneStuckDeliveryDoesNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.MaxCalls = s.MaxInFlight
		sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			for i := range batch.Deliveries {
				if string(batch.Deliveries[i].Event.Body) == "event 3" {
					defer func() { <-ctx.Done() }() // never answers
					continue
				}
				result(host.Result{Index: i, Outcome: host.OutcomeDelivered})
			}
			return nil
		})
		q := newMemQueue(300)
		w := run(t, s, q, sink, asIs)
		time.Sleep(time.Second)
		check(t, q, map[string]int{"delivered": 299})
		w.end()
		check(t, q, map[string]int{"delivered": 299, "retry": 1}) // given back at the stop
	})
}

func TestStopFinishesWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			time.Sleep(5 * time.Second)
			return all(delivered)(ctx, batch, result)
		}
		q := newMemQueue(3)
		w := run(t, settings(), q, newFakeSink(slow), asIs)
		synctest.Wait()
		began := time.Now()
		w.stop()
		synctest.Wait()
		q.add("one more, after the stop")
		w.end()
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("stopping took %v, want 5s", took)
		}
		check(t, q, map[string]int{"delivered": 3})
	})
}

func TestStopGivesBackWhatTheGraceDidNotSuffice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := func(ctx context.Context, _ host.Batch, _ func(host.Result)) error { <-ctx.Done(); return ctx.Err() }
		q := newMemQueue(3)
		w := run(t, settings(), q, newFakeSink(hang), asIs)
		synctest.Wait()
		began := time.Now()
		w.end()
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("stopping took %v, want the grace of 10s", took)
		}
		check(t, q, map[string]int{"retry": 3})
		for _, s := range q.settled {
			if s.Attempts != 0 || s.Retry.At.After(time.Now()) {
				t.Errorf("given back as %+v, want due at once and no attempt counted", s)
			}
		}
	})
}

func TestLeasesOfLongAttemptsAreExtended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		long := func(_ context.Context, batch host.Batch, result func(host.Result)) error {
			time.Sleep(90 * time.Second)
			result(host.Result{Index: 0, Outcome: host.OutcomeDelivered})
			return nil
		}
		q := newMemQueue(1)
		w := run(t, settings(), q, newFakeSink(long), asIs)
		time.Sleep(2 * time.Minute)
		w.end()
		if q.extended < 4 {
			t.Errorf("extended %d times in 90 s, want one each 20 s", q.extended)
		}
	})
}

func TestLingerFillsTheBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Linger = time.Second
		q, sink := newMemQueue(1), newFakeSink(all(delivered))
		w := run(t, s, q, sink, asIs)
		for range 3 {
			time.Sleep(100 * time.Millisecond)
			q.add("more")
		}
		time.Sleep(time.Minute)
		w.end()
		if len(sink.calls) != 1 || len(sink.calls[0]) != 4 {
			t.Errorf("%d batches, first of %d; want one of 4", len(sink.calls), len(sink.calls[0]))
		}
	})
}

func TestAQueueThatFailsEndsTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(1)
		w := run(t, settings(), q, newFakeSink(all(delivered)), asIs)
		synctest.Wait()
		q.fail(queue.ErrFailed)
		if err := <-w.stopped; !errors.Is(err, queue.ErrFailed) {
			t.Errorf("Run: %v, want ErrFailed", err)
		}
	})
}

func TestHealthIsToldOncePerChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ok atomic.Bool
		sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			if ok.Load() {
				return all(delivered)(ctx, batch, result)
			}
			return all(host.Result{Outcome: host.OutcomeRetry, Message: "connection refused"})(ctx, batch, result)
		})
		q := newMemQueue(20)
		w := run(t, settings(), q, sink, asIs)
		time.Sleep(20 * time.Second)
		ok.Store(true)
		time.Sleep(10 * time.Minute)
		w.end()
		for _, line := range []string{"begins to fail", "has recovered"} {
			if n := strings.Count(w.log.String(), line); n != 1 {
				t.Errorf("%q was said %d times:\n%s", line, n, w.log)
			}
		}
	})
}

func TestAllSeriesExistFromTheStart(t *testing.T) {
	reg := prometheus.NewRegistry()
	deliver.NewMetrics(reg).Sink("out")
	for name, want := range map[string]int{
		"callbackd_attempts_total": 4, "callbackd_deliveries_total": 3, "callbackd_dead_letters_total": 7,
		"callbackd_attempt_duration_seconds": 1, "callbackd_delivery_lag_seconds": 1, "callbackd_breaker_open": 1,
	} {
		if n, err := testutil.GatherAndCount(reg, name); err != nil || n != want {
			t.Errorf("%s has %d series (%v), want %d", name, n, err, want)
		}
	}
}
