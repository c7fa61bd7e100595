package deliver

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/summary"
)

// health tells people when a sink begins to fail and when it has recovered, once
// per change, not once per attempt; and of what became dead letters.
type health struct {
	logger *slog.Logger
	deaths *summary.Summary[*event.Death]

	mu       sync.Mutex
	failing  bool
	since    time.Time
	latest   time.Time   // when it failed last
	recovery *time.Timer // tells of it, unless something fails before; nil: none
}

// settledFor is how long nothing has failed at least where a sink has recovered, so
// that one that fails now and then does not fill the log.
const settledFor = 10 * time.Second

func newHealth(logger *slog.Logger) *health {
	return &health{logger: logger, deaths: summary.New(func(count int, latest *event.Death) {
		logger.Warn("deliveries became dead letters", "count", count, "reason", string(latest.Reason), "error", latest.Error)
	})}
}

// failed is called for an attempt that has to be made again.
func (h *health) failed(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget()
	h.latest = time.Now()
	if h.failing {
		return
	}
	h.failing, h.since = true, h.latest
	h.logger.Warn("the sink begins to fail", "error", message)
}

// works is called when the sink has taken something of a batch, and nothing of it
// has failed.
func (h *health) works() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failing || h.recovery != nil {
		return
	}
	now := time.Now()
	wait := settledFor - now.Sub(h.latest)
	if wait <= 0 {
		h.recovered(now)
		return
	}
	// Also a sink that gets nothing more before it is settled has recovered.
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.recovery == timer {
			h.recovered(now)
		}
	})
	h.recovery = timer
}

// recovered is called with mu held.
func (h *health) recovered(at time.Time) {
	h.failing, h.recovery = false, nil
	h.logger.Warn("the sink has recovered", "failing_for", at.Sub(h.since).Round(time.Second))
}

// stop ends what waits to be told.
func (h *health) stop() {
	h.deaths.Stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.forget()
}

// forget is called with mu held.
func (h *health) forget() {
	if h.recovery != nil {
		h.recovery.Stop()
		h.recovery = nil
	}
}

func (h *health) dead(d *event.Death) { h.deaths.Add(1, d) }

// pause is a moment before which a sink is left alone, because it asked for
// that.
type pause struct {
	retry Retry

	mu  sync.Mutex
	at  time.Time
	row int // pauses in a row without a delivery between them
}

// throttled begins a pause, or makes the present one longer: as long as the sink
// asks for, and at least a backoff that grows with each pause in a row.
func (p *pause) throttled(retryAfter time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !now.Before(p.at) {
		p.row++
	}
	wait := max(p.retry.asked(retryAfter), p.retry.backoff(p.row, 0.5))
	if t := now.Add(wait); t.After(p.at) {
		p.at = t
	}
}

// delivered says that the sink takes deliveries.
func (p *pause) delivered() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.row = 0
}

// until is when the pause ends; zero: there is none.
func (p *pause) until(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !now.Before(p.at) {
		return time.Time{}
	}
	return p.at
}

// wait waits until then and tells whether it had to; ok is false where ctx ends
// first.
func (p *pause) wait(ctx context.Context) (paused, ok bool) {
	for {
		p.mu.Lock()
		at := p.at
		p.mu.Unlock()
		if time.Until(at) <= 0 {
			return paused, ctx.Err() == nil
		}
		if paused = true; !sleepUntil(ctx, at) {
			return paused, false
		}
	}
}
