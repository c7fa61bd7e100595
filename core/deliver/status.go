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
}

// Status tells what the Worker is doing. It may be called from any goroutine.
func (w *Worker) Status() Status {
	out := Status{PausedUntil: w.pause.until(time.Now()), Ramp: int(w.ramp.allowed.Load())}
	w.breaker.mu.Lock()
	defer w.breaker.mu.Unlock()
	out.Breaker, out.BreakerSince = w.breaker.state, w.breaker.since
	if out.Breaker == BreakerOpen {
		out.OpenUntil = w.breaker.until
	}
	return out
}
