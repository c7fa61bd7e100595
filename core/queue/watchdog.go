package queue

import (
	"sync/atomic"
	"time"
)

// watchdog notices that something takes too long. One goroutine begins and ends
// what is watched.
type watchdog struct {
	timeout time.Duration
	// excused tells whether it may take longer, for as long as that lasts.
	excused func() bool
	overdue func()

	epoch time.Time
	since atomic.Int64 // when it began or was excused, after epoch; 0: nothing is watched
	timer *time.Timer
}

func newWatchdog(timeout time.Duration, excused func() bool, overdue func()) *watchdog {
	w := &watchdog{timeout: timeout, excused: excused, overdue: overdue, epoch: time.Now()}
	w.timer = time.AfterFunc(time.Hour, w.look)
	w.timer.Stop()
	return w
}

func (w *watchdog) now() int64 { return max(int64(time.Since(w.epoch)), 1) }

func (w *watchdog) begin() {
	w.since.Store(w.now())
	w.timer.Reset(w.timeout)
}

func (w *watchdog) end() {
	w.since.Store(0)
	w.timer.Stop()
}

// look may come late: what it was set for has ended then, and something else may
// have begun.
func (w *watchdog) look() {
	since := w.since.Load()
	if since == 0 {
		return
	}
	left := w.timeout - time.Duration(w.now()-since)
	if left <= 0 && !w.excused() {
		w.overdue()
		return
	}
	if left <= 0 {
		w.since.CompareAndSwap(since, w.now())
		left = w.timeout
	}
	w.timer.Reset(left)
}
