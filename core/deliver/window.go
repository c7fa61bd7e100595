package deliver

import (
	"context"
	"sync"
	"time"
)

// window counts what a sink has in flight, and what the queue does not have the
// settlements of yet: a sink that is faster than commits does not wait for them.
type window struct {
	maxCalls, maxBytes int
	// ramp bounds the events.
	ramp *ramp

	mu                   sync.Mutex
	events, calls, bytes int
	unsettled            int           // events included
	freed                chan struct{} // holds a token when enough was freed
}

// maxUnsettled is how many deliveries, those in flight included, may be without a
// settlement that the queue has: a kill -9 delivers them again.
const maxUnsettled = 4096

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
		free, freeBytes, calls := min(most-w.events, max(maxUnsettled, most)-w.unsettled), w.maxBytes-w.bytes, w.calls
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
func (w *window) took(events, bytes int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events += events
	w.unsettled += events
	w.bytes += bytes
}

// ended frees the room of a delivery that the sink is done with.
func (w *window) ended(bytes int) {
	most := w.ramp.limit()
	w.mu.Lock()
	full := w.events >= most || w.bytes >= w.maxBytes
	w.events--
	w.bytes -= bytes
	enough := most-w.events >= max(1, most/4)
	w.mu.Unlock()
	if full || enough {
		w.signal()
	}
}

// settled notes that the queue has settlements.
func (w *window) settled(events int) {
	w.mu.Lock()
	w.unsettled -= events
	w.mu.Unlock()
	w.signal()
}

func (w *window) beginCall() { w.call(1) }
func (w *window) endCall()   { w.call(-1) }

func (w *window) call(n int) {
	w.mu.Lock()
	w.calls += n
	w.mu.Unlock()
	w.signal()
}

func (w *window) signal() {
	select {
	case w.freed <- struct{}{}:
	default:
	}
}
