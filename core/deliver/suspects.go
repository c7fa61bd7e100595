package deliver

import (
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/callbackd/callbackd/core/queue"
)

// convictedAfter is how many crashes alone with it make a delivery a dead letter.
const convictedAfter = 3

// accuse adds a crash to what is known of a delivery that had no result when the
// plugin died. delivered is how many deliveries of the sink were ever delivered.
//
// A crash alone with it speaks against it only where something was delivered since
// the last one that did: a plugin that dies of everything convicts nothing.
func accuse(s queue.Suspicion, alone bool, delivered int64) queue.Suspicion {
	s.Crashes = min(s.Crashes, math.MaxInt32-1) + 1
	switch {
	case !alone:
	case s.Alone == 0 || delivered > s.Delivered:
		s.Alone++
		s.Delivered = delivered
	case delivered < s.Delivered:
		s.Delivered = delivered // the count fell behind; from here on it can be relied on
	}
	return s
}

// deaths is what a worker knows of the deaths of its sink's plugin.
type deaths struct {
	logger *slog.Logger
	// delivered is how many deliveries of the sink were ever delivered.
	delivered atomic.Int64
	// wary: no call was survived since the last death. Set while nothing is in
	// flight.
	wary atomic.Bool

	mu       sync.Mutex
	pending  bool // one that was not faced yet
	suspects int  // new ones since the last line about them
	message  string
	told     time.Time
}

// died notes that the plugin died, and how many deliveries are suspects by that.
func (d *deaths) died(suspects int, message string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending, d.message = true, message
	d.suspects += suspects
}

func (d *deaths) unfaced() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pending
}

// face is called when nothing is in flight any more after a death, so that all
// calls which it ended are known. It tells people about a change, once.
func (d *deaths) face() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.pending {
		return
	}
	d.pending = false
	again := d.wary.Swap(true)
	if again || d.suspects == 0 || time.Since(d.told) < settledFor {
		return
	}
	d.logger.Warn("the plugin died with deliveries in flight: each of them is tried alone", "count", d.suspects, "error", d.message)
	d.told, d.suspects = time.Now(), 0
}

// survived notes that the plugin has lived through a call.
func (d *deaths) survived() {
	if d.wary.Load() {
		d.wary.Store(false)
	}
}

// turns shares the time of a sink between suspects, which need it for themselves,
// and the others, so that neither starves the other: after at most turnTime, and
// an attempt that may take longer, or after a crash, the others have it for as
// long, once there are some. Only one goroutine uses it.
type turns struct {
	used  time.Duration // by suspects, in their present turn
	owed  time.Duration // to the others, when the next of them is handed over
	until time.Time     // before that the others have the sink
}

const turnTime = 100 * time.Millisecond

func (t *turns) suspectsFirst(now time.Time) bool { return t.owed == 0 && !now.Before(t.until) }

// suspect says that a suspect held the others up for that long.
func (t *turns) suspect(took time.Duration, died bool) {
	if t.used += took; died || t.used >= turnTime {
		t.owed, t.used = max(t.owed, t.used, turnTime), 0
	}
}

// other says that others are handed over now.
func (t *turns) other(now time.Time) {
	if t.owed > 0 {
		t.until, t.owed = now.Add(t.owed), 0
	}
}
