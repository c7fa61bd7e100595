package deliver

import (
	"context"
	"sync"
	"time"
)

// window counts what a sink has in flight.
type window struct {
	maxEvents, maxCalls int

	mu            sync.Mutex
	events, calls int
	freed         chan struct{} // holds a token when something was freed
}

func newWindow(maxEvents, maxCalls int) *window {
	return &window{maxEvents: maxEvents, maxCalls: maxCalls, freed: make(chan struct{}, 1)}
}

// worthIt is how long room waits for more room than a sliver. While results
// trickle in one by one, batches would shrink to single events otherwise, and
// each costs as much as a full one.
const worthIt = time.Millisecond

// room waits until one more call may begin and returns how many events it may
// carry; ok is false where ctx ends first. Only one goroutine calls it.
func (w *window) room(ctx context.Context) (events int, ok bool) {
	var patience *time.Timer
	var lostPatience <-chan time.Time
	impatient := false
	for {
		w.mu.Lock()
		free, calls := w.maxEvents-w.events, w.calls
		w.mu.Unlock()
		if calls < w.maxCalls && free > 0 && (impatient || free >= max(1, w.maxEvents/4)) {
			return free, true
		}
		if patience == nil && calls < w.maxCalls && free > 0 {
			patience = time.NewTimer(worthIt)
			defer patience.Stop()
			lostPatience = patience.C
		}
		select {
		case <-ctx.Done():
			return 0, false
		case <-w.freed:
		case <-lostPatience:
			impatient = true
		}
	}
}

func (w *window) begin(events int) { w.change(events, 1) }

// settled frees the room of events whose settlement the queue has.
func (w *window) settled(events int) { w.change(-events, 0) }

func (w *window) endCall() { w.change(0, -1) }

func (w *window) change(events, calls int) {
	w.mu.Lock()
	w.events += events
	w.calls += calls
	w.mu.Unlock()
	select {
	case w.freed <- struct{}{}:
	default:
	}
}
