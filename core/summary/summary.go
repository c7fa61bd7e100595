// Package summary tells people how often something happened, where a line for each
// time would be too many: at once of the first time, then once in a while of what has
// been added since.
//
// It promises that everything that is added is told of, also when nothing follows,
// and that nothing is held up by the telling of others. It must not know what it
// counts.
package summary

import (
	"sync"
	"time"
)

// Interval is the least time between two lines of a Summary.
const Interval = 10 * time.Second

// Summary counts what happens. Its methods may be called from any goroutine.
type Summary[T any] struct {
	say func(count int, latest T)

	mu      sync.Mutex
	count   int // since the last line
	latest  T
	quiet   bool // no line yet: there was one a moment ago
	stopped bool
	timer   *time.Timer // ends the quiet
}

// New returns a Summary that is told by say: how many since the last time, and what
// was added with the latest of them. Without a Stop it ends by itself, an interval
// after the last Add.
func New[T any](say func(count int, latest T)) *Summary[T] { return &Summary[T]{say: say} }

// Add counts n more.
func (t *Summary[T]) Add(n int, latest T) {
	t.mu.Lock()
	t.count, t.latest = t.count+n, latest
	if t.quiet && !t.stopped {
		t.mu.Unlock()
		return
	}
	t.tell()
}

// Stop tells what has not been told yet. What is added after it is told at once.
func (t *Summary[T]) Stop() {
	t.mu.Lock()
	t.stopped = true
	if t.timer != nil {
		t.timer.Stop()
	}
	if t.count == 0 {
		t.mu.Unlock()
		return
	}
	t.tell()
}

// tell is called with mu held, and lets go of it.
func (t *Summary[T]) tell() {
	count, latest := t.count, t.latest
	t.count, t.quiet = 0, true
	t.mu.Unlock()
	t.say(count, latest)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.stopped {
		t.timer = time.AfterFunc(Interval, t.due)
	}
}

// due is called when an interval is over.
func (t *Summary[T]) due() {
	t.mu.Lock()
	if t.count == 0 {
		t.quiet = false
		t.mu.Unlock()
		return
	}
	t.tell()
}
