package deliver_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
)

func ordered(q *memQueue) *memQueue {
	for _, it := range q.items {
		it.leased.Ordered = true
	}
	return q
}

// A delivery with an order key does not become a dead letter by an attempt that
// may still be under way.
func TestOrderIsKeptWhereAnAttemptMayStillBeUnderWay(t *testing.T) {
	late := noResult(host.ErrTimeout)
	down := all(isDown())
	type calls = []func(context.Context, host.Batch, func(host.Result)) error
	exhausted := event.Death{Reason: event.ReasonExhausted, Error: "connection refused"}
	timedOut := event.Death{Reason: event.ReasonExhausted, Error: "timeout"}
	for _, c := range []struct {
		name    string
		ordered bool
		maxAge  time.Duration
		calls   calls
		dead    *event.Death // nil: delivered
		want    int          // attempts that it took
	}{
		{"without an order key", false, 0, calls{late, late}, &timedOut, 2},
		{"the end is known", true, 0, calls{late, down}, &exhausted, 2},
		{"it is not", true, 0, calls{down, late, late, late, all(delivered)}, nil, 5},
		{"it becomes known: it fails", true, 0, calls{late, late, late, down}, &exhausted, 4},
		{"rejected", true, 0, calls{late, late, all(host.Result{Outcome: host.OutcomeRejected, Message: "no"})}, &event.Death{Reason: event.ReasonRejected, Error: "no"}, 3},
		{"the plugin ended the call", true, 0, calls{down, noResult(host.ErrIncomplete)}, &event.Death{Reason: event.ReasonExhausted, Error: "results are missing"}, 2},
		{"also as it gets old", true, 5 * time.Second, calls{late, late, late, late, late, late, all(delivered)}, nil, 7},
		{"and old", true, time.Millisecond, calls{late, late, down}, &event.Death{Reason: event.ReasonExpired, Error: "connection refused"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := settings()
				s.Retry.MaxAttempts, s.Retry.MaxAge = 2, c.maxAge
				if c.maxAge > 0 {
					s.Retry.MaxAttempts = 0
				}
				q, sink := newMemQueue(1), newFakeSink(inTurn(c.calls...))
				if c.ordered {
					ordered(q)
				}
				w := run(t, s, q, sink, asIs)
				time.Sleep(time.Hour)
				w.end()
				last := q.settled[len(q.settled)-1]
				switch {
				case len(sink.calls) != c.want || last.Attempts != c.want:
					t.Errorf("%d calls, %d attempts counted, want %d", len(sink.calls), last.Attempts, c.want)
				case c.dead == nil && !last.Delivered, c.dead != nil && (last.Dead == nil || *last.Dead != *c.dead):
					t.Errorf("settled as %+v %+v, want %+v", last, last.Dead, c.dead)
				}
				for i := 1; i < len(sink.times); i++ {
					if wait := sink.times[i].Sub(sink.times[i-1]); c.maxAge == 0 && wait < s.Retry.MinBackoff {
						t.Errorf("tried again after %v", wait)
					}
				}
				dead := 0.
				if c.dead != nil {
					dead = 1
				}
				w.metric("callbackd_deliveries_total", dead, "result=dead", "sink=out")
			})
		})
	}
}

// Once the process is gone, nothing is under way: the death that was put off comes
// without another attempt.
func TestAnEndOfTheProcessEndsTheDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.Retry.MaxAttempts = 1
		q, sink := ordered(newMemQueue(2)), newFakeSink(noResult(host.ErrTimeout))
		sink.restarts = 5
		w := run(t, s, q, sink, asIs)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		sink.mu.Lock()
		tried := len(sink.calls)
		sink.mu.Unlock()
		check(t, q, map[string]int{"retry": retries(q)})
		if tried < 10 || tried > 100 {
			t.Errorf("%d calls in 10 minutes", tried)
		}
		q.mu.Lock()
		for _, st := range q.settled {
			if st.Retry.Error != "timeout" {
				t.Errorf("settled as %+v", st)
			}
		}
		q.mu.Unlock()
		sink.mu.Lock()
		sink.restarts++
		sink.mu.Unlock()
		time.Sleep(2 * time.Minute)
		w.end()
		check(t, q, map[string]int{"retry": retries(q), "exhausted": 2})
		if len(sink.calls) != tried {
			t.Errorf("%d more calls were made", len(sink.calls)-tried)
		}
		for _, st := range q.settled {
			if st.Dead != nil && (st.Dead.Error != "timeout" || st.Suspicion != (queue.Suspicion{})) {
				t.Errorf("dead as %+v", st.Dead)
			}
		}
		w.metric("callbackd_dead_letters_total", 2, "reason=exhausted", "sink=out")
	})
}
