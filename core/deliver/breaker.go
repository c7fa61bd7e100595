package deliver

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Breaker says when a sink that fails is left alone for a while.
//
// It judges by attempts that had an end: a failure is one that has to be made
// again, also because there was no result; one that the sink delivered or rejected
// is a success, since the sink works. Throttled attempts say nothing, and neither
// do those that a plugin's death ended.
//
// Deliveries that never succeed make up nearly all attempts after a while, and the
// others must not suffer for that. So only the first failure of a delivery counts
// against successes. Further ones count where nothing succeeded within the window,
// and less each time: the second a quarter, the third a ninth.
type Breaker struct {
	// FailureRatio is the share of failures from which on it opens: up to 1. 0:
	// there is no breaker.
	FailureRatio float64
	// MinAttempts is how many attempts it takes to judge.
	MinAttempts int
	// Window is how far back attempts count. A tenth of it is enough where
	// MinAttempts failed and nothing succeeded.
	Window time.Duration
	// OpenFor is how long it stays open at first; it doubles up to MaxOpenFor
	// each time that the sink fails again. Up to a fifth of it is left out, by
	// chance.
	OpenFor, MaxOpenFor time.Duration
	// Probes is how many deliveries are then tried, one at a time. It opens again
	// where FailureRatio of them fail, and closes as soon as that cannot be any
	// more.
	Probes int
}

// BreakerState is what a breaker lets through.
type BreakerState string

// The states of a breaker.
const (
	// BreakerClosed: everything.
	BreakerClosed BreakerState = "closed"
	// BreakerOpen: nothing.
	BreakerOpen BreakerState = "open"
	// BreakerHalfOpen: one delivery at a time, to see whether the sink works.
	BreakerHalfOpen BreakerState = "half_open"
)

// parts is how many parts the window of a breaker has.
const parts = 10

// breaker is the Breaker of one sink.
type breaker struct {
	settings Breaker
	logger   *slog.Logger
	gauge    prometheus.Gauge
	random   func() float64
	started  time.Time

	mu      sync.Mutex
	state   BreakerState
	since   time.Time // when it left closed, or came back to it
	until   time.Time // open until then
	openFor time.Duration
	row     int // openings in a row
	window  [parts]tally
	run     run
	probed  int // since it is half open
	failed  int // of them
}

// tally counts the attempts of a part of the window.
type tally struct {
	part      int64 // which one, since the start
	successes float64
	first     float64 // failures of deliveries that had not failed before
	further   float64 // the other failures, by weight
}

// run is the failures of first attempts since the last success.
type run struct {
	began time.Time
	first int
}

func newBreaker(s Breaker, logger *slog.Logger, gauge prometheus.Gauge, now time.Time) *breaker {
	s.MinAttempts, s.Probes = max(1, s.MinAttempts), max(1, s.Probes)
	s.Window = max(s.Window, parts*time.Millisecond)
	s.OpenFor = max(s.OpenFor, time.Millisecond)
	s.MaxOpenFor = max(s.MaxOpenFor, s.OpenFor)
	gauge.Set(0)
	return &breaker{settings: s, logger: logger, gauge: gauge, random: random, started: now, state: BreakerClosed, since: now}
}

// weight is how much a failure counts that is the n-th of its delivery. However
// often it is tried, a delivery that never succeeds weighs no more than 1.65
// in all.
func weight(n int) float64 { return 1 / (float64(n) * float64(n)) }

// ended notes the end of an attempt, the n-th of its delivery. It tells whether the
// breaker closed by that.
func (b *breaker) ended(now time.Time, failed bool, n int) (closed bool) {
	if b.settings.FailureRatio <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch b.state {
	case BreakerHalfOpen:
		return b.probe(now, failed)
	case BreakerOpen: // it was in flight when it opened
		return false
	}
	b.count(now, failed, n)
	if !failed || !b.fails(now) {
		return false
	}
	if now.Sub(b.since) > b.openFor {
		b.row = 0 // it held
	}
	b.open(now)
	b.logger.Warn("the breaker opened: the sink is left alone, and then tried with a few deliveries", "again_in", b.openFor.Round(time.Millisecond))
	return false
}

func (b *breaker) count(now time.Time, failed bool, n int) {
	part := b.part(now)
	t := &b.window[part%parts]
	if t.part != part {
		*t = tally{part: part}
	}
	switch {
	case !failed:
		t.successes++
		b.run = run{}
	case n > 1:
		t.further += weight(n)
	default:
		t.first++
		if b.run.first++; b.run.first == 1 {
			b.run.began = now
		}
	}
}

// fails tells whether the window says so.
func (b *breaker) fails(now time.Time) bool {
	var successes, first, further float64
	oldest := b.part(now) - parts
	for i := range b.window {
		if t := &b.window[i]; t.part > oldest {
			successes += t.successes
			first += t.first
			further += t.further
		}
	}
	least := b.settings.MinAttempts
	if successes == 0 {
		return first+further >= float64(least)
	}
	return successes+first >= float64(least) && first >= b.settings.FailureRatio*(successes+first) ||
		b.run.first >= least && now.Sub(b.run.began) >= b.settings.Window/parts
}

func (b *breaker) part(now time.Time) int64 {
	return int64(now.Sub(b.started) / (b.settings.Window / parts))
}

func (b *breaker) probe(now time.Time, failed bool) (closed bool) {
	b.probed++
	if failed {
		b.failed++
	}
	enough := b.settings.FailureRatio * float64(b.settings.Probes)
	left := max(0, b.settings.Probes-b.probed)
	switch {
	case float64(b.failed) >= enough:
		b.open(now)
		b.logger.Debug("the sink failed again: the breaker stays open", "again_in", b.openFor.Round(time.Millisecond))
	case float64(b.failed+left) < enough:
		b.logger.Warn("the breaker closed: the sink works again", "open_for", now.Sub(b.since).Round(time.Second))
		b.state, b.since = BreakerClosed, now
		b.window, b.run = [parts]tally{}, run{}
		b.gauge.Set(0)
		return true
	}
	return false
}

// open is called with mu held.
func (b *breaker) open(now time.Time) {
	if b.state == BreakerClosed {
		b.since = now
	}
	b.state, b.probed, b.failed = BreakerOpen, 0, 0
	b.openFor = b.settings.MaxOpenFor
	if b.row = min(b.row+1, 40); b.settings.OpenFor < b.settings.MaxOpenFor>>(b.row-1) {
		b.openFor = b.settings.OpenFor << (b.row - 1)
	}
	b.openFor -= time.Duration(b.random() * float64(b.openFor/5))
	b.until = now.Add(b.openFor)
	b.gauge.Set(1)
}

func (b *breaker) is(state BreakerState) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.state == state
}

// wait waits until the breaker has been open for long enough; it is false where
// ctx ends first.
func (b *breaker) wait(ctx context.Context) bool {
	b.mu.Lock()
	until := b.until
	b.mu.Unlock()
	return sleepUntil(ctx, until)
}

// tryAgain makes it half open. Nothing is in flight then but what follows.
func (b *breaker) tryAgain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.state == BreakerOpen {
		b.state = BreakerHalfOpen
	}
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	left := time.Until(t)
	if left <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
