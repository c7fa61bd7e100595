package deliver

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// Failure is the last attempt that did not deliver, where nothing was delivered
// after it.
type Failure struct {
	// Error is why: what the log line says.
	Error string
	// At is when it ended, Since when the first one did after which nothing was
	// delivered.
	At, Since time.Time
}

// failures remember the last Failure, for people.
type failures struct {
	last      atomic.Pointer[Failure] // nil: none since the last delivery
	delivered atomic.Int64            // when that was, in nanoseconds since 1970; 0: never

	mu sync.Mutex // for changes of last
}

func (f *failures) ended(a attempted, now time.Time) {
	if a.outcome == event.OutcomeDelivered {
		f.succeeded(now)
	} else {
		f.failed(a.message, now)
	}
}

func (f *failures) failed(message string, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := now
	if before := f.last.Load(); before != nil {
		since = before.Since
	}
	f.last.Store(&Failure{Error: event.CutError(message), At: now, Since: since})
}

// succeeded is called for each delivery: it has to cost next to nothing.
func (f *failures) succeeded(now time.Time) {
	f.delivered.Store(now.UnixNano())
	if f.last.Load() == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last.Store(nil)
}

func (f *failures) lastDelivery() time.Time {
	if at := f.delivered.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}
