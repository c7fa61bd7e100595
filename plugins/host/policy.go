package host

import (
	"context"
	"math/rand/v2"
	"time"
)

// restartPolicy says how long to wait before a plugin is started again: twice as
// long after each run that ended early, with jitter, so that many plugins that
// fail together do not come back together.
type restartPolicy struct {
	min, max time.Duration
	// healthy is how long a plugin has to run for its past to be forgotten.
	healthy time.Duration
	// random returns a number in [0, 1).
	random func() float64

	next time.Duration // before jitter; 0: min
}

func newRestartPolicy(o *Options) *restartPolicy {
	return &restartPolicy{
		min: o.MinBackoff, max: max(o.MinBackoff, o.MaxBackoff), healthy: o.HealthyAfter,
		random: rand.Float64,
	}
}

// delay returns the wait after a run of the given length: between half of and
// the whole step, but never less than min.
func (p *restartPolicy) delay(ran time.Duration) time.Duration {
	if p.next == 0 || ran >= p.healthy {
		p.next = p.min
	}
	step := p.next
	p.next = min(2*step, p.max)
	return max(p.min, step/2+time.Duration(p.random()*float64(step-step/2)))
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
