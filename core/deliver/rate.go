package deliver

import (
	"context"
	"math"
	"sync"
	"time"
)

// Rate bounds the attempts that a sink gets.
type Rate struct {
	// PerSecond is how many there may be on average, more than 0.
	PerSecond float64
	// Burst is how many there may be at once after a quiet time, at least 1.
	Burst int
}

// gather is how long of a rate is waited for before something is taken: at a high
// rate single tokens would make batches of single events.
const gather = 10 * time.Millisecond

// limiter is a token bucket: an attempt takes a token when it begins. What waits
// for tokens waits in the queue, since nothing is taken that there is no token for;
// what is given back untried has cost none. Nil limits nothing.
type limiter struct {
	rate Rate
	// returned holds a token when attempts that were none gave theirs back.
	returned chan struct{}

	mu     sync.Mutex
	tokens float64 // at the time at
	at     time.Time
	// waiting: attempts wait for tokens; waited is when they last did.
	waiting bool
	waited  time.Time
}

func newLimiter(r *Rate, now time.Time) *limiter {
	if r == nil {
		return nil
	}
	rate := Rate{PerSecond: r.PerSecond, Burst: max(1, r.Burst)}
	return &limiter{rate: rate, returned: make(chan struct{}, 1), tokens: float64(rate.Burst), at: now}
}

// wait waits until there are tokens, and returns how many attempts may begin; ok
// is false where ctx ends first. Until use is called there are no fewer. Only one
// goroutine calls wait and use.
func (l *limiter) wait(ctx context.Context) (n int, ok bool) {
	if l == nil {
		return math.MaxInt, true
	}
	worth := min(max(1, math.Floor(l.rate.PerSecond*gather.Seconds())), float64(l.rate.Burst))
	for {
		l.mu.Lock()
		l.refill(time.Now())
		tokens := l.tokens
		if l.waiting = tokens < worth; l.waiting {
			l.waited = l.at
		}
		l.mu.Unlock()
		if tokens >= worth {
			return int(tokens), ctx.Err() == nil
		}
		// Rounded up, or it would be a moment too early.
		left := (worth-tokens)/l.rate.PerSecond*float64(time.Second) + 1
		timer := time.NewTimer(time.Duration(min(left, float64(24*time.Hour))))
		select {
		case <-timer.C:
		case <-l.returned:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return 0, false
		}
	}
}

// holdsFor is how long after it held attempts back the limiter counts as doing so: at
// a high rate it does so many times a second.
const holdsFor = time.Second

// holds tells whether it holds attempts back at present.
func (l *limiter) holds(now time.Time) bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting || (!l.waited.IsZero() && now.Sub(l.waited) < holdsFor)
}

// use takes the tokens of attempts that begin now.
func (l *limiter) use(attempts int) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refill(time.Now())
	l.tokens -= float64(attempts)
}

// giveBack returns the tokens of attempts that the sink never got.
func (l *limiter) giveBack(attempts int) {
	if l == nil || attempts == 0 {
		return
	}
	l.mu.Lock()
	l.refill(time.Now())
	l.tokens = min(l.tokens+float64(attempts), float64(l.rate.Burst))
	l.mu.Unlock()
	select {
	case l.returned <- struct{}{}:
	default:
	}
}

// refill is called with mu held.
func (l *limiter) refill(now time.Time) {
	l.tokens = min(l.tokens+now.Sub(l.at).Seconds()*l.rate.PerSecond, float64(l.rate.Burst))
	l.at = now
}
