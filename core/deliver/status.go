package deliver

import "time"

// Status is what a Worker makes of its sink, for people.
type Status struct {
	// Breaker is closed also where there is none.
	Breaker BreakerState
	// BreakerSince is when the breaker left BreakerClosed, or came back to it.
	BreakerSince time.Time
	// OpenUntil is when an open breaker lets the first probe through; else zero.
	OpenUntil time.Time
	// PausedUntil is when a pause ends that the sink asked for; zero: there is
	// none.
	PausedUntil time.Time
	// Ramp is how many deliveries may be in flight while the sink gets its backlog
	// after it came back. 0: all that it is allowed.
	Ramp int
	// RateLimit is what bounds the attempts; nil: nothing does. RateLimited: it
	// holds attempts back, or would.
	RateLimit   *Rate
	RateLimited bool
	// Failure is the last one; nil: something was delivered since, or nothing
	// failed.
	Failure *Failure
	// Delivered is when this Worker delivered last; zero: never.
	Delivered time.Time
}

// Status tells what the Worker is doing. It may be called from any goroutine.
func (w *Worker) Status() Status {
	now := time.Now()
	out := Status{
		PausedUntil: w.pause.until(now), Ramp: int(w.ramp.allowed.Load()),
		RateLimit: w.settings.RateLimit, RateLimited: w.limiter.holds(now),
		Failure: w.failures.last.Load(), Delivered: w.failures.lastDelivery(),
	}
	w.breaker.mu.Lock()
	defer w.breaker.mu.Unlock()
	out.Breaker, out.BreakerSince = w.breaker.state, w.breaker.since
	if out.Breaker == BreakerOpen {
		out.OpenUntil = w.breaker.until
	}
	return out
}
