package deliver

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// health tells people when a sink begins to fail and when it has recovered: once
// per change, not once per attempt.
type health struct {
	logger *slog.Logger

	mu       sync.Mutex
	failing  bool
	since    time.Time
	lastDead time.Time
	dying    int // dead letters since the last line about them
}

// settledFor is how long a change holds at least, so that a sink that fails now and
// then does not fill the log.
const settledFor = 10 * time.Second

func (h *health) failed(message string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failing {
		return
	}
	h.failing, h.since = true, time.Now()
	h.logger.Warn("the sink begins to fail", "error", message)
}

// delivered is called when a whole batch was delivered.
func (h *health) delivered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.failing || time.Since(h.since) < settledFor {
		return
	}
	h.failing = false
	h.logger.Warn("the sink has recovered", "failing_for", time.Since(h.since).Round(time.Second))
}

func (h *health) dead(d *event.Death) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dying++
	if time.Since(h.lastDead) < settledFor {
		return
	}
	h.logger.Warn("deliveries became dead letters", "count", h.dying, "reason", string(d.Reason), "error", d.Error)
	h.lastDead, h.dying = time.Now(), 0
}

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
	wait := max(min(retryAfter, MaxRetryAfter), p.retry.backoff(p.row, 0.5))
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

// wait waits until then; it is false where ctx ends first.
func (p *pause) wait(ctx context.Context) bool {
	for {
		p.mu.Lock()
		left := time.Until(p.at)
		p.mu.Unlock()
		if left <= 0 {
			return ctx.Err() == nil
		}
		timer := time.NewTimer(left)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}
