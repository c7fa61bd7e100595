package deliver

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// rampStep is how long each allowance of a ramp holds at least.
	rampStep = 250 * time.Millisecond
	// rampBound ends a ramp that gets nowhere: it is for the time after a sink has
	// come back, not for sinks that fail now and then for ever.
	rampBound = time.Minute
)

// ramp bounds what a sink has in flight after it came back, so that its backlog
// does not fall upon it all at once: at first 1, doubling step by step while
// deliveries succeed. A step in which most of them fail halves it.
type ramp struct {
	full    int
	allowed atomic.Int64 // 0: there is no ramp

	mu        sync.Mutex
	stepEnds  time.Time
	ends      time.Time
	successes float64 // in this step
	failures  float64
	halved    bool // in this step
}

// begin begins a ramp, or the present one anew.
func (r *ramp) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full <= 1 {
		return
	}
	r.ends = now.Add(rampBound)
	r.step(now)
	r.allowed.Store(1)
}

// limit is how much may be in flight.
func (r *ramp) limit() int {
	if n := int(r.allowed.Load()); n > 0 {
		return n
	}
	return r.full
}

// ended notes the end of an attempt, the n-th of its delivery.
func (r *ramp) ended(now time.Time, failed bool, n int) {
	if r.allowed.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	over := !now.Before(r.stepEnds)
	if over && r.halved {
		r.step(now)
		over = false
	}
	if failed {
		r.failures += weight(n)
	} else {
		r.successes++
	}
	allowed := int(r.allowed.Load())
	switch {
	case r.failures >= 3*r.successes+2 && !r.halved:
		r.halved = true
		allowed = max(1, allowed/2)
	case !over:
		return
	default:
		if r.successes > 0 {
			allowed *= 2
		}
		r.step(now)
	}
	if allowed >= r.full || !now.Before(r.ends) {
		allowed = 0
	}
	r.allowed.Store(int64(allowed))
}

// step begins a step. It is called with mu held.
func (r *ramp) step(now time.Time) {
	r.stepEnds = now.Add(rampStep)
	r.successes, r.failures, r.halved = 0, 0, false
}
