package host

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestartPolicy(t *testing.T) {
	policy := func(random float64) *restartPolicy {
		return &restartPolicy{
			min: 100 * time.Millisecond, max: time.Minute, healthy: time.Minute,
			random: func() float64 { return random },
		}
	}
	t.Run("doubles to the bound", func(t *testing.T) {
		p := policy(0.999999999)
		want := 100 * time.Millisecond
		for i := range 20 {
			if got := p.delay(0).Round(time.Millisecond); got != want {
				t.Errorf("delay %d: %v, want %v", i, got, want)
			}
			want = min(2*want, time.Minute)
		}
	})
	t.Run("never a tight loop", func(t *testing.T) {
		p := policy(0)
		last := time.Duration(0)
		for i := range 20 {
			got := p.delay(59 * time.Second)
			if got < 100*time.Millisecond || got < last {
				t.Errorf("delay %d: %v after %v", i, got, last)
			}
			last = got
		}
		if last != 30*time.Second {
			t.Errorf("the last delay: %v", last)
		}
	})
	t.Run("health forgives", func(t *testing.T) {
		p := policy(0.5)
		for range 10 {
			p.delay(0)
		}
		if got := p.delay(time.Minute); got != 100*time.Millisecond {
			t.Errorf("after a minute of health: %v", got)
		}
		if got := p.delay(0); got != 150*time.Millisecond {
			t.Errorf("the one after that: %v", got)
		}
	})
}

// TestRestartPace: a plugin that always fails is started a known number of times
// in an hour.
func TestRestartPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		p := newRestartPolicy(new(Options{}.withDefaults()))
		starts := 0
		for ctx.Err() == nil {
			starts++
			sleep(ctx, p.delay(0))
		}
		// About 10 on the way up; then one every 30 to 60 s.
		if starts < 60 || starts > 135 {
			t.Errorf("%d starts in an hour", starts)
		}
	})
}

// TestPulse: what tells a plugin that is busy from one that hangs.
func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pulse
		busy := func(want bool, when string) {
			t.Helper()
			if got := p.busy(time.Now()); got != want {
				t.Errorf("%s: busy %t", when, got)
			}
		}
		const patience = 10 * time.Second
		busy(false, "idle")
		p.begin(time.Now(), patience)
		busy(true, "at the begin of a call")
		time.Sleep(9 * time.Second)
		busy(true, "within a delivery's time")
		p.beat(time.Now())
		time.Sleep(9 * time.Second)
		busy(true, "within the next one's time")
		time.Sleep(time.Second)
		busy(false, "after it")
		p.end(false)
		p.begin(time.Now(), patience)
		busy(false, "in a new call while the doubt remains")
		p.beat(time.Now())
		busy(true, "once there is progress again")
		p.end(true)
		busy(false, "idle again")
		time.Sleep(time.Hour)
		p.begin(time.Now(), patience)
		busy(true, "after a good end nothing is held against it")
	})
}
