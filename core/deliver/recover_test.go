package deliver_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

func withBreaker() deliver.Settings {
	s := settings()
	s.MaxInFlight, s.MaxCalls, s.MaxBatchEvents = 256, 4, 64
	s.Retry.MaxAge = 0
	s.Breaker = deliver.Breaker{
		FailureRatio: 0.9, MinAttempts: 20, Window: 10 * time.Second,
		OpenFor: 5 * time.Second, MaxOpenFor: time.Minute, Probes: 3,
	}
	return s
}

// receiver is behind a sink: it takes a while for a delivery, and answers what it
// is set to.
type receiver struct {
	down    atomic.Bool
	latency time.Duration
	answer  host.Result // while down

	mu    sync.Mutex
	got   []time.Time // attempts, when they began
	bound func(open int)
	open  int
}

func (r *receiver) deliver(ctx context.Context, batch host.Batch, result func(host.Result)) error {
	var wait sync.WaitGroup
	results := make(chan host.Result, len(batch.Deliveries))
	for i := range batch.Deliveries {
		r.mu.Lock()
		r.open++
		r.got = append(r.got, time.Now())
		if r.bound != nil {
			r.bound(r.open)
		}
		r.mu.Unlock()
		wait.Go(func() {
			time.Sleep(r.latency)
			out := host.Result{Index: i, Outcome: host.OutcomeDelivered}
			if r.down.Load() {
				out = r.answer
				out.Index = i
			}
			r.mu.Lock()
			r.open--
			r.mu.Unlock()
			results <- out
		})
	}
	go func() { wait.Wait(); close(results) }()
	for out := range results {
		result(out)
	}
	return ctx.Err()
}

// setBound calls f with how many deliveries are open, each time that there is one
// more. Nil: not.
func (r *receiver) setBound(f func(open int)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bound = f
}

// since counts the attempts since a time.
func (r *receiver) since(t time.Time) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.got {
		if !at.Before(t) {
			n++
		}
	}
	return n
}

func isDown() host.Result {
	return host.Result{Outcome: host.OutcomeRetry, Message: "connection refused"}
}

func TestASinkThatIsDownCostsFewAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{latency: 10 * time.Millisecond, answer: isDown()}
		r.down.Store(true)
		s := withBreaker()
		s.Retry.MaxAttempts = 8
		q, sink := newMemQueue(2000), newFakeSink(r.deliver)
		w := run(t, s, q, sink, asIs)
		time.Sleep(time.Second)
		if state := w.worker.Status().Breaker; state != deliver.BreakerOpen {
			t.Fatalf("the breaker is %s", state)
		}
		first := r.since(time.Time{})
		if first > 256 {
			t.Errorf("%d attempts before the breaker opened, want what was in flight", first)
		}
		w.metric("callbackd_breaker_open", 1, "sink=out")
		if n := q.taken(); n != first {
			t.Errorf("%d were taken for %d attempts", n, first)
		}
		for range 1000 { // nothing is held meanwhile but a probe
			time.Sleep(100 * time.Millisecond)
			if q.held() > 1 || (w.worker.Status().Breaker == deliver.BreakerOpen && q.held() != 0) {
				t.Fatalf("%d leases are held while the breaker is %s", q.held(), w.worker.Status().Breaker)
			}
		}
		time.Sleep(3*time.Hour - 100*time.Second)
		// Three probes each minute at the most.
		if n := r.since(time.Time{}) - first; n > 3*230 || n < 3*170 {
			t.Errorf("%d attempts in 3 hours", n)
		}
		if got := q.ended(); got["exhausted"] > 200 {
			t.Errorf("settled as %v", got)
		}
		r.down.Store(false)
		time.Sleep(5 * time.Minute)
		w.end()
		if got := q.ended(); got["delivered"]+got["exhausted"] != 2000 {
			t.Errorf("settled as %v", got)
		}
		w.metric("callbackd_breaker_open", 0, "sink=out")
		for _, line := range []string{"the breaker opened", "the breaker closed"} {
			if n := strings.Count(w.log.String(), line); n != 1 {
				t.Errorf("%q was said %d times:\n%s", line, n, w.log)
			}
		}
	})
}

func TestProbesGoOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &receiver{latency: time.Second, answer: isDown()}
		r.down.Store(true)
		s := withBreaker()
		s.Breaker.FailureRatio = 0.3 // all three have to be delivered
		q, sink := newMemQueue(500), newFakeSink(r.deliver)
		w := run(t, s, q, sink, asIs)
		time.Sleep(1500 * time.Millisecond)
		status := w.worker.Status()
		if status.Breaker != deliver.BreakerOpen || time.Until(status.OpenUntil) > 5*time.Second {
			t.Fatalf("%+v", status)
		}
		r.down.Store(false)
		r.setBound(func(open int) {
			if open > 1 {
				t.Errorf("%d deliveries are in flight while it is half open", open)
			}
		})
		time.Sleep(time.Until(status.OpenUntil) + 2500*time.Millisecond)
		synctest.Wait()
		if got := w.worker.Status(); got.Breaker != deliver.BreakerHalfOpen || !got.OpenUntil.IsZero() {
			t.Errorf("%+v after two probes", got)
		}
		if n := r.since(status.OpenUntil); n != 3 {
			t.Errorf("%d probes in 2.5 s, want 3 of 1 s one after another", n)
		}
		w.metric("callbackd_breaker_open", 1, "sink=out")
		time.Sleep(600 * time.Millisecond)
		r.setBound(nil)
		if got := w.worker.Status(); got.Breaker != deliver.BreakerClosed || got.Ramp == 0 {
			t.Errorf("%+v after three", got)
		}
		w.end()
	})
}

// The worker waits for a delivery while others, in flight, open the breaker.
func TestWhatComesWhenItHasOpenedGoesBack(t *testing.T) {
	for _, suspect := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &receiver{latency: time.Second, answer: isDown()}
			r.down.Store(true)
			q, sink := newMemQueue(30), newFakeSink(r.deliver)
			w := run(t, withBreaker(), q, sink, asIs)
			time.Sleep(500 * time.Millisecond)
			if suspect { // it waits for the others to end
				q.add("suspect")
				q.mu.Lock()
				q.items[31].leased.Suspicion = queue.Suspicion{Crashes: 1}
				q.mu.Unlock()
				synctest.Wait()
				if q.held() != 31 {
					t.Errorf("%d leases are held", q.held())
				}
			}
			time.Sleep(600 * time.Millisecond)
			status := w.worker.Status()
			if status.Breaker != deliver.BreakerOpen {
				t.Fatalf("%+v", status)
			}
			addMany(q, 10)
			for time.Until(status.OpenUntil) > 50*time.Millisecond {
				synctest.Wait()
				if q.held() != 0 {
					t.Fatalf("%d leases are held, %v before it is tried again", q.held(), time.Until(status.OpenUntil))
				}
				time.Sleep(50 * time.Millisecond)
			}
			if n := r.since(time.Time{}); n != 30 {
				t.Errorf("%d attempts, want those that opened it", n)
			}
			w.end()
		})
	}
}

// Probes wait for what is still in flight, and hold nothing meanwhile.
func TestProbesWaitForWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		calls := 0
		sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			mu.Lock()
			calls++
			hangs := calls == 1
			mu.Unlock()
			if hangs {
				time.Sleep(31 * time.Second)
				return host.ErrTimeout
			}
			return all(isDown())(ctx, batch, result)
		})
		q := newMemQueue(500)
		w := run(t, withBreaker(), q, sink, asIs)
		time.Sleep(time.Second)
		sink.mu.Lock()
		before := len(sink.calls)
		sink.mu.Unlock()
		taken := q.taken()
		time.Sleep(29 * time.Second)
		if w.worker.Status().Breaker != deliver.BreakerOpen || q.held() != 64 || q.taken() != taken {
			t.Errorf("%+v, %d leases are held, %d were taken", w.worker.Status(), q.held(), q.taken()-taken)
		}
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		sink.mu.Lock()
		if n := len(sink.calls); n != before+3 {
			t.Errorf("%d calls when that ended, want 3 probes", n-before)
		}
		sink.mu.Unlock()
		w.end()
	})
}

// What says nothing about the receiver does not open it.
func TestWhatIsNoFailureOfTheSink(t *testing.T) {
	rejected := host.Result{Outcome: host.OutcomeRejected, Message: "no"}
	for _, c := range []struct {
		name    string
		deliver func(context.Context, host.Batch, func(host.Result)) error
		want    deliver.BreakerState
	}{
		{"rejected", all(rejected), deliver.BreakerClosed},
		{"throttled", all(host.Result{Outcome: host.OutcomeThrottled}), deliver.BreakerClosed},
		{"crash", noResult(host.ErrCrashed), deliver.BreakerClosed},
		{"not ready", noResult(host.ErrNotReady), deliver.BreakerClosed},
		{"stopped", noResult(host.ErrStopped), deliver.BreakerClosed},
		{"too large", noResult(host.ErrTooLarge), deliver.BreakerClosed},
		{"timeout", noResult(host.ErrTimeout), deliver.BreakerOpen},
		{"no results", noResult(host.ErrIncomplete), deliver.BreakerOpen},
		{"retry", all(isDown()), deliver.BreakerOpen},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q, sink := newMemQueue(100), newFakeSink(c.deliver)
				w := run(t, withBreaker(), q, sink, asIs)
				time.Sleep(2 * time.Second)
				if got := w.worker.Status().Breaker; got != c.want {
					t.Errorf("the breaker is %s, want %s", got, c.want)
				}
				w.end()
			})
		})
	}
}

// A sink that fails half of its events for ever, and was down, delivers the
// others as soon as it works again.
func TestASinkThatFailsHalfComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		sink := newFakeSink(func(_ context.Context, batch host.Batch, result func(host.Result)) error {
			for i, d := range batch.Deliveries {
				r := isDown()
				if !down.Load() && len(d.Event.Body)%2 == 0 {
					r = delivered
				}
				r.Index = i
				result(r)
			}
			return nil
		})
		q := newMemQueue(0)
		w := run(t, withBreaker(), q, sink, asIs)
		add := func(seconds int) {
			for range seconds * 2 {
				time.Sleep(500 * time.Millisecond)
				q.add("good")
				q.add("never")
			}
		}
		add(200)
		before := q.ended()["delivered"]
		if before < 395 {
			t.Errorf("%d of 400 were delivered, with retries of as many that fail", before)
		}
		down.Store(true)
		add(60)
		if state := w.worker.Status().Breaker; state == deliver.BreakerClosed {
			t.Error("the breaker is closed")
		}
		down.Store(false)
		add(90)
		w.end()
		if got := q.ended()["delivered"]; got < 690 {
			t.Errorf("%d of 700 were delivered", got)
		}
	})
}

// The backlog of a sink that is back does not fall upon it at once.
func TestTheBacklogComesByARamp(t *testing.T) {
	for _, c := range []struct {
		name  string
		cause func(r *receiver, w *world, sink *fakeSink, q *memQueue)
	}{
		{"after the breaker", func(r *receiver, _ *world, _ *fakeSink, q *memQueue) {
			time.Sleep(10 * time.Second) // what succeeded is forgotten
			r.down.Store(true)
			addMany(q, 30)
			time.Sleep(time.Second)
		}},
		{"after a pause", func(r *receiver, _ *world, _ *fakeSink, q *memQueue) {
			r.answer = host.Result{Outcome: host.OutcomeThrottled, RetryAfter: 10 * time.Second}
			r.down.Store(true)
			addMany(q, 1)
			time.Sleep(time.Second)
		}},
		{"after the plugin was away", func(_ *receiver, _ *world, sink *fakeSink, q *memQueue) {
			up := make(chan struct{})
			sink.setReady(up)
			addMany(q, 1) // the worker waits for one, and for the sink after it
			time.Sleep(5 * time.Second)
			time.AfterFunc(2*time.Second, func() { close(up) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &receiver{latency: 20 * time.Millisecond, answer: isDown()}
				q, sink := newMemQueue(1000), newFakeSink(r.deliver)
				w := run(t, withBreaker(), q, sink, asIs)
				time.Sleep(time.Second)
				sink.mu.Lock()
				most := sink.maxEvents
				sink.mu.Unlock()
				if got := w.worker.Status().Ramp; got != 0 || most < 200 {
					t.Errorf("a ramp of %d at the start; %d were in flight", got, most)
				}
				check(t, q, map[string]int{"delivered": 1000})
				c.cause(r, w, sink, q)
				addMany(q, 5000)
				r.down.Store(false)
				for began := time.Now(); w.worker.Status().Ramp == 0 && time.Since(began) < time.Minute; {
					time.Sleep(time.Millisecond)
				}
				if w.worker.Status().Ramp == 0 {
					t.Fatalf("no ramp: %+v", w.worker.Status())
				}
				back := time.Now()
				if n := r.since(back.Add(-2 * time.Millisecond)); n > 2 {
					t.Errorf("%d attempts at once when it came back", n)
				}
				r.setBound(func(open int) {
					if most := 2 << (time.Since(back) / (240 * time.Millisecond)); open > most {
						t.Errorf("%d in flight %v after it came back, want %d at most", open, time.Since(back), most)
					}
				})
				for w.worker.Status().Ramp != 0 {
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(back); took > 4*time.Second {
					t.Errorf("the ramp took %v", took)
				}
				time.Sleep(time.Minute)
				w.end()
				if got := q.ended()["delivered"]; got < 6000 {
					t.Errorf("%d were delivered", got)
				}
			})
		})
	}
}

func addMany(q *memQueue, n int) {
	for i := range n {
		q.add(fmt.Sprintf("more %d", i))
	}
}

func TestAQuietSinkThatRecoversSoonIsToldOf(t *testing.T) {
	for _, c := range []struct {
		name   string
		events []time.Duration // when another one comes
		fails  map[int]bool    // calls
		told   time.Duration   // when it was told that it recovered
	}{
		{"once, quiet afterwards", []time.Duration{0}, map[int]bool{0: true}, 10 * time.Second},
		{"it fails again before", []time.Duration{0, 5 * time.Second}, map[int]bool{0: true, 2: true}, 15 * time.Second},
		{"it fails again last", []time.Duration{0, 9 * time.Second}, map[int]bool{0: true, 2: true}, 19 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
					calls++
					if c.fails[calls-1] {
						return all(isDown())(ctx, batch, result)
					}
					return all(delivered)(ctx, batch, result)
				})
				q := newMemQueue(0)
				began := time.Now()
				w := run(t, settings(), q, sink, asIs)
				go func() {
					for _, at := range c.events {
						time.Sleep(at - time.Since(began))
						q.add("event")
					}
				}()
				time.Sleep(c.told - time.Millisecond)
				if strings.Contains(w.log.String(), "recovered") {
					t.Errorf("told before %v:\n%s", c.told, w.log)
				}
				time.Sleep(time.Millisecond)
				synctest.Wait()
				if n := strings.Count(w.log.String(), "has recovered"); n != 1 {
					t.Errorf("told %d times:\n%s", n, w.log)
				}
				if n := strings.Count(w.log.String(), "begins to fail"); n != 1 {
					t.Errorf("its failing was told %d times:\n%s", n, w.log)
				}
				w.end()
			})
		})
	}
}

func TestAPendingRecoveryEndsWithTheNextFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		down.Store(true)
		sink := newFakeSink(func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			if down.Load() {
				return all(isDown())(ctx, batch, result)
			}
			return all(delivered)(ctx, batch, result)
		})
		q := newMemQueue(1)
		w := run(t, settings(), q, sink, asIs)
		synctest.Wait()
		down.Store(false)
		time.Sleep(3 * time.Second) // delivered
		down.Store(true)
		addMany(q, 1)
		time.Sleep(30 * time.Second)
		if strings.Contains(w.log.String(), "recovered") {
			t.Errorf("told while it fails:\n%s", w.log)
		}
		down.Store(false)
		time.Sleep(time.Minute)
		if n := strings.Count(w.log.String(), "has recovered"); n != 1 {
			t.Errorf("told %d times:\n%s", n, w.log)
		}
		w.end()
	})
}

func TestNothingIsToldAfterTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newMemQueue(1)
		w := run(t, settings(), q, newFakeSink(inTurn(all(isDown()), all(delivered))), asIs)
		time.Sleep(5 * time.Second)
		w.end()
		time.Sleep(time.Minute)
		if strings.Contains(w.log.String(), "recovered") {
			t.Errorf("told after the stop:\n%s", w.log)
		}
	})
}

func TestTheLongestWaitThatASinkMayAskFor(t *testing.T) {
	for _, outcome := range []host.Outcome{host.OutcomeRetry, host.OutcomeThrottled} {
		synctest.Test(t, func(t *testing.T) {
			s := settings()
			s.Retry.MaxAge, s.Retry.MaxRetryAfter = 0, 10*time.Minute
			q, sink := newMemQueue(1), newFakeSink(inTurn(all(host.Result{Outcome: outcome, RetryAfter: 5 * time.Hour}), all(delivered)))
			w := run(t, s, q, sink, asIs)
			time.Sleep(time.Hour)
			w.end()
			if len(sink.times) != 2 {
				t.Fatalf("%s: %d calls", outcome, len(sink.times))
			}
			if wait := sink.times[1].Sub(sink.times[0]); wait < 10*time.Minute || wait > 11*time.Minute {
				t.Errorf("%s: came back after %v, want 10 min", outcome, wait)
			}
		})
	}
}
