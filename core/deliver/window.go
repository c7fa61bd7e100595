package deliver

import (
	"context"
	"sync"
	"time"
)

// window counts what a sink has in flight.
type window struct {
	maxCalls, maxBytes int
	// ramp bounds the events.
	ramp *ramp

	mu                   sync.Mutex
	events, calls, bytes int
	freed                chan struct{} // holds a token when something was freed
}

// maxBytes bounds the bodies of what a sink has in flight; one event may exceed
// it. A sink that hangs must not hold what its events times the largest body are.
const maxBytes = 64 << 20

func newWindow(maxEvents, maxCalls int) *window {
	return &window{ramp: &ramp{full: maxEvents}, maxCalls: maxCalls, maxBytes: maxBytes, freed: make(chan struct{}, 1)}
}

// worthIt is how long room waits for more room than a sliver. While results
// trickle in one by one, batches would shrink to single events otherwise, and
// each costs as much as a full one.
const worthIt = time.Millisecond

// room waits until one more call may begin and returns how many events, of how
// many bytes, it may carry; ok is false where ctx ends first. Only one goroutine
// calls it.
func (w *window) room(ctx context.Context) (events, bytes int, ok bool) {
	var patience *time.Timer
	var lostPatience <-chan time.Time
	impatient := false
	for {
		most := w.ramp.limit()
		w.mu.Lock()
		free, freeBytes, calls := most-w.events, w.maxBytes-w.bytes, w.calls
		w.mu.Unlock()
		some := calls < w.maxCalls && free > 0 && freeBytes > 0
		if some && (impatient || free >= max(1, most/4)) {
			return free, freeBytes, true
		}
		if patience == nil && some {
			patience = time.NewTimer(worthIt)
			defer patience.Stop()
			lostPatience = patience.C
		}
		select {
		case <-ctx.Done():
			return 0, 0, false
		case <-w.freed:
		case <-lostPatience:
			impatient = true
		}
	}
}

// idle waits until no call is under way; false where ctx ends first. Only the
// goroutine that calls room calls it.
func (w *window) idle(ctx context.Context) bool {
	for {
		w.mu.Lock()
		calls := w.calls
		w.mu.Unlock()
		if calls == 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-w.freed:
		}
	}
}

// took notes what was taken from the queue.
func (w *window) took(events, bytes int) { w.change(events, bytes, 0) }

// settled frees the room of what the queue has the settlements of.
func (w *window) settled(events, bytes int) { w.change(-events, -bytes, 0) }

func (w *window) beginCall() { w.change(0, 0, 1) }
func (w *window) endCall()   { w.change(0, 0, -1) }

func (w *window) change(events, bytes, calls int) {
	w.mu.Lock()
	w.events += events
	w.bytes += bytes
	w.calls += calls
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}
