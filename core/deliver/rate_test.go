package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/pipeline"
	"github.com/callbackd/callbackd/plugins/host"
)

// atMost checks that no stretch of time has more attempts than the rate allows.
func (s *fakeSink) atMost(t *testing.T, r deliver.Rate) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.times {
		n := 0
		for j := i; j < len(s.times); j++ {
			n += len(s.calls[j])
			took := s.times[j].Sub(s.times[i])
			if most := float64(r.Burst) + r.PerSecond*took.Seconds() + 1e-6; float64(n) > most {
				t.Fatalf("%d attempts within %v, want %.3f at most", n, took, most)
			}
		}
	}
}

func TestRateLimit(t *testing.T) {
	for _, r := range []deliver.Rate{{PerSecond: 10, Burst: 5}, {PerSecond: 0.5, Burst: 1}, {PerSecond: 7.3, Burst: 40}, {PerSecond: 1000, Burst: 20}} {
		t.Run(fmt.Sprint(r), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := settings()
				s.RateLimit = &r
				const n = 200
				q, sink := newMemQueue(n), newFakeSink(all(delivered))
				look := max(time.Millisecond, time.Duration(0.1/r.PerSecond*float64(time.Second)))
				began := time.Now()
				w := run(t, s, q, sink, asIs)
				for q.ended()["delivered"] < n && time.Since(began) < time.Hour {
					time.Sleep(look)
					synctest.Wait()
					if q.held() != 0 {
						t.Fatalf("%d leases are held while it waits", q.held())
					}
				}
				due := time.Duration(float64(n-r.Burst) / r.PerSecond * float64(time.Second))
				if took := time.Since(began); took < due || took > due+look+20*time.Millisecond {
					t.Errorf("%d deliveries took %v, want %v", n, took, due)
				}
				time.Sleep(time.Minute) // a burst again, and no more than that
				addMany(q, 100)
				time.Sleep(5 * time.Minute)
				w.end()
				sink.atMost(t, r)
				check(t, q, map[string]int{"delivered": n + 100})
			})
		})
	}
}

func TestAHighRateStillMakesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.RateLimit = &deliver.Rate{PerSecond: 1000, Burst: 1000}
		q, sink := newMemQueue(3000), newFakeSink(all(delivered))
		w := run(t, s, q, sink, asIs)
		time.Sleep(2500 * time.Millisecond)
		w.end()
		check(t, q, map[string]int{"delivered": 3000})
		if len(sink.calls) > 400 {
			t.Errorf("%d calls for 3000 deliveries", len(sink.calls))
		}
	})
}

// Retries cost tokens like first attempts. Others wait for the same tokens.
func TestRetriesCountAgainstTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.RateLimit = &deliver.Rate{PerSecond: 2, Burst: 3}
		s.Retry.MaxAge, s.Retry.MaxBackoff = 0, 10*time.Second
		q, sink := newMemQueue(50), newFakeSink(all(isDown()))
		w := run(t, s, q, sink, asIs)
		time.Sleep(5 * time.Minute)
		w.end()
		sink.atMost(t, *s.RateLimit)
		if n := q.ended()["retry"]; n < 550 || n > 603 {
			t.Errorf("%d attempts in 5 minutes, want 2 a second", n)
		}
	})
}

// A batch that was held back by a pause does not go out together with the tokens
// that came in the meantime.
func TestAPauseDoesNotDoubleTheBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.RateLimit = &deliver.Rate{PerSecond: 1, Burst: 10}
		s.Retry.MaxAge = 0
		throttle := func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
			time.Sleep(time.Second) // the worker asks for more meanwhile
			return all(host.Result{Outcome: host.OutcomeThrottled, RetryAfter: 30 * time.Second})(ctx, batch, result)
		}
		q, sink := newMemQueue(1), newFakeSink(inTurn(throttle, all(delivered)))
		w := run(t, s, q, sink, asIs)
		time.Sleep(1500 * time.Millisecond)
		addMany(q, 100)
		time.Sleep(3 * time.Minute)
		w.end()
		sink.atMost(t, *s.RateLimit)
		if got := q.ended()["delivered"]; got != 101 {
			t.Errorf("%d delivered", got)
		}
	})
}

func TestWhatWasNotTriedCostsNoTokens(t *testing.T) {
	half := func(v *event.View, _ string) (pipeline.Rendered, error) {
		if v.Event.Body[len(v.Event.Body)-1]%2 == 0 {
			return pipeline.Rendered{}, errors.New("boom")
		}
		return pipeline.Rendered{Body: v.Event.Body}, nil
	}
	for _, c := range []struct {
		name   string
		first  func(context.Context, host.Batch, func(host.Result)) error
		render deliver.Render
		want   map[string]int
	}{
		{"not ready", noResult(host.ErrNotReady), asIs, map[string]int{"retry": 4, "delivered": 4}},
		{"too large", func(ctx context.Context, b host.Batch, result func(host.Result)) error {
			return host.ErrTooLarge
		}, asIs, map[string]int{"delivered": 4}},
		{"not rendered", all(delivered), half, map[string]int{"render": 2, "delivered": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := settings()
				s.RateLimit = &deliver.Rate{PerSecond: 0.001, Burst: 4}
				q, sink := newMemQueue(4), newFakeSink(inTurn(c.first, all(delivered)))
				w := run(t, s, q, sink, c.render)
				time.Sleep(10 * time.Second)
				check(t, q, c.want)
				if c.name == "not rendered" { // two are left
					addMany(q, 5) // 0 and 2 cannot be rendered, and neither could 4, but it waits
					time.Sleep(10 * time.Second)
					check(t, q, map[string]int{"render": 4, "delivered": 4})
				}
				w.end()
			})
		})
	}
}

// One after another, what a plugin's death sends back costs a token only when it
// is tried.
func TestWhatIsGivenBackCostsNoTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings()
		s.RateLimit = &deliver.Rate{PerSecond: 0.001, Burst: 21}
		q, m := newMemQueue(10), newMortal(t, poisonous)
		m.kills = func(string) bool { return len(m.deaths) == 0 }
		w := run(t, s, q, m, asIs)
		time.Sleep(30 * time.Second)
		// 10 in company, then each alone: one token is left.
		check(t, q, map[string]int{"retry": retries(q), "delivered": 10})
		addMany(q, 2)
		time.Sleep(30 * time.Second)
		check(t, q, map[string]int{"retry": retries(q), "delivered": 11})
		if q.held() != 0 {
			t.Errorf("%d leases are held without a token", q.held())
		}
		w.end()
	})
}
