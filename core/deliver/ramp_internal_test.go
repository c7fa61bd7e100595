package deliver

import (
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

func TestWhichAttemptsJudgeTheSink(t *testing.T) {
	for _, c := range []struct {
		name string
		a    attempted
		want bool
	}{
		{"delivered", attempted{outcome: event.OutcomeDelivered}, true},
		{"rejected", attempted{outcome: event.OutcomeRejected}, true},
		{"retry", attempted{outcome: event.OutcomeRetry}, true},
		{"timeout", attempted{outcome: event.OutcomeRetry, inDoubt: true}, true},
		{"throttled", attempted{outcome: event.OutcomeThrottled, uncounted: true}, false},
		{"died", attempted{outcome: event.OutcomeRetry, uncounted: true, died: true}, false},
		{"too large to be sent", attempted{outcome: event.OutcomeRejected, untried: true}, false},
		{"not ready", attempted{outcome: event.OutcomeRetry, uncounted: true, untried: true}, false},
	} {
		if got := c.a.judges(); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRamp(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	r := &ramp{full: 100}
	is := func(want int, what string) {
		t.Helper()
		if got := r.limit(); got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	step := func(ok, failed int) {
		for range ok {
			r.ended(now, false, 1)
		}
		for range failed {
			r.ended(now, true, 1)
		}
		now = now.Add(rampStep)
	}
	is(100, "without a ramp")
	step(0, 10)
	is(100, "failures begin none")
	r.begin(now)
	is(1, "at first")
	step(1, 0)
	is(1, "within the first step")
	step(1, 0)
	is(2, "after it")
	now = now.Add(10 * time.Second)
	is(2, "while there is nothing to deliver")
	step(1, 0)
	is(4, "with the next one")
	step(10, 0)
	step(10, 0)
	is(16, "two steps later")
	step(1, 4)
	is(16, "most fail: what was won is lost, at once")
	step(0, 100)
	is(8, "halved, once in a step")
	step(0, 2)
	is(4, "and again in the next")
	step(10, 20)
	step(10, 20)
	is(8, "many may fail")
	for range 20 {
		for range 100 {
			r.ended(now, true, 9)
		}
		r.ended(now, false, 1)
		now = now.Add(rampStep)
	}
	is(100, "those that failed before weigh less")
	r.begin(now)
	step(0, 1)
	is(1, "begun anew")
	step(0, 1)
	step(0, 1)
	is(1, "nothing succeeds")
	for range 6 {
		step(2, 0)
	}
	is(64, "it does")
	step(2, 0)
	is(100, "over")
	step(0, 100)
	is(100, "and that is all")

	r.begin(now)
	for range 500 {
		step(0, 1)
	}
	is(100, "one that gets nowhere ends")

	r = &ramp{full: 1}
	r.begin(now)
	is(1, "there is nothing to do for one at a time")
	if r.allowed.Load() != 0 {
		t.Error("but a ramp")
	}
}
