package deliver

import (
	"math"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
)

func TestAccuse(t *testing.T) {
	for _, c := range []struct {
		name      string
		had       queue.Suspicion
		alone     bool
		delivered int64
		want      queue.Suspicion
	}{
		{"in company", queue.Suspicion{}, false, 7, queue.Suspicion{Crashes: 1}},
		{"the first alone counts at once", queue.Suspicion{Crashes: 1}, true, 0, queue.Suspicion{Crashes: 2, Alone: 1}},
		{"also without one in company", queue.Suspicion{}, true, 7, queue.Suspicion{Crashes: 1, Alone: 1, Delivered: 7}},
		{"nothing was delivered since", queue.Suspicion{Crashes: 2, Alone: 1, Delivered: 7}, true, 7, queue.Suspicion{Crashes: 3, Alone: 1, Delivered: 7}},
		{"something was", queue.Suspicion{Crashes: 3, Alone: 1, Delivered: 7}, true, 8, queue.Suspicion{Crashes: 4, Alone: 2, Delivered: 8}},
		{"and again", queue.Suspicion{Crashes: 4, Alone: 2, Delivered: 8}, true, 100, queue.Suspicion{Crashes: 5, Alone: 3, Delivered: 100}},
		{"in company it never counts", queue.Suspicion{Crashes: 4, Alone: 2, Delivered: 8}, false, 100, queue.Suspicion{Crashes: 5, Alone: 2, Delivered: 8}},
		{"the count fell behind", queue.Suspicion{Crashes: 4, Alone: 2, Delivered: 8}, true, 3, queue.Suspicion{Crashes: 5, Alone: 2, Delivered: 3}},
		{"as often as can be", queue.Suspicion{Crashes: math.MaxInt32}, false, 0, queue.Suspicion{Crashes: math.MaxInt32}},
	} {
		if got := accuse(c.had, c.alone, c.delivered); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestSettleAfterADeath(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	retry := Retry{MinBackoff: time.Second, MaxBackoff: time.Minute, MaxAttempts: 1, MaxAge: time.Hour}
	const nearlyOne = 1 - 1e-9
	for _, c := range []struct {
		name      string
		alone     bool
		suspicion queue.Suspicion
		age       time.Duration
		wait      time.Duration // -1: a dead letter
		reason    event.Reason
	}{
		{"in company it is due at once", false, queue.Suspicion{Crashes: 1}, 0, 0, ""},
		{"in company it does not even expire", false, queue.Suspicion{Crashes: 1}, 2 * time.Hour, 0, ""},
		{"alone it backs off", true, queue.Suspicion{Crashes: 1, Alone: 1}, 0, 2 * time.Second, ""},
		{"more", true, queue.Suspicion{Crashes: 2, Alone: 1}, 0, 4 * time.Second, ""},
		{"and more, counted or not", true, queue.Suspicion{Crashes: 4, Alone: 1}, 0, 16 * time.Second, ""},
		{"up to the most", true, queue.Suspicion{Crashes: 1000, Alone: 2}, 0, time.Minute, ""},
		{"but not beyond its age", true, queue.Suspicion{Crashes: 1000, Alone: 2}, time.Hour - 5*time.Second, 5 * time.Second, ""},
		{"alone it expires", true, queue.Suspicion{Crashes: 9, Alone: 2}, time.Hour, -1, event.ReasonExpired},
		{"the third convicts", true, queue.Suspicion{Crashes: 9, Alone: 3}, 0, -1, event.ReasonCrashed},
		{"rather than that it expires", true, queue.Suspicion{Crashes: 9, Alone: 3}, 2 * time.Hour, -1, event.ReasonCrashed},
	} {
		l := &queue.Leased{Since: now.Add(-c.age)}
		s := retry.settle(attempted{
			leased: l, outcome: event.OutcomeRetry, message: "it died", uncounted: true,
			died: true, alone: c.alone, suspicion: c.suspicion,
		}, now, nearlyOne)
		switch {
		case s.Attempts != 0:
			t.Errorf("%s: an attempt was counted", c.name)
		case c.wait < 0:
			if s.Dead == nil || *s.Dead != (event.Death{Reason: c.reason, Error: "it died"}) || s.Suspicion.Suspect() {
				t.Errorf("%s: %+v, want dead, %s", c.name, s, c.reason)
			}
		case s.Retry == nil || s.Retry.Error != "it died" || s.Suspicion != c.suspicion:
			t.Errorf("%s: %+v, want a retry that keeps its suspicion", c.name, s)
		case s.Retry.At.Sub(now).Round(time.Millisecond) != c.wait:
			t.Errorf("%s: again in %v, want %v", c.name, s.Retry.At.Sub(now), c.wait)
		}
	}
}

func TestTurns(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var turns turns
	first := func(want bool, what string) {
		t.Helper()
		if got := turns.suspectsFirst(now); got != want {
			t.Errorf("%s: suspects first is %v", what, got)
		}
	}
	first(true, "at the start")
	turns.suspect(40*time.Millisecond, false)
	turns.other(now)
	first(true, "some time is left")
	turns.suspect(70*time.Millisecond, false)
	first(false, "it is used up")
	now = now.Add(time.Hour)
	first(false, "the others had nothing yet")
	turns.other(now)
	now = now.Add(109 * time.Millisecond)
	first(false, "the others have as long")
	turns.other(now)
	now = now.Add(time.Millisecond)
	first(true, "the others had as long")
	turns.suspect(time.Millisecond, true)
	first(false, "after a crash")
	turns.other(now)
	now = now.Add(turnTime - 1)
	first(false, "the others have a whole turn")
	now = now.Add(1)
	first(true, "they had it")
	turns.suspect(30*time.Second, false)
	turns.other(now)
	now = now.Add(29 * time.Second)
	first(false, "after a long attempt the others have as long")
}
