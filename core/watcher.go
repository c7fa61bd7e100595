package core

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/callbackd/callbackd/core/deliver"
	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/core/redrive"
	"github.com/callbackd/callbackd/core/summary"
)

// watcher counts what the queue ends by itself, and tells people of it: senders have
// had success for all of that.
type watcher struct {
	deliveries *deliver.Metrics
	letters    *redrive.Metrics
	logger     *slog.Logger
	// limits are those that the queue keeps to.
	limits atomic.Pointer[map[string]queue.Limits]

	mu        sync.Mutex
	summaries map[loss]*summary.Summary[event.Reason]
}

// loss is what there is a line about.
type loss struct {
	what lost
	sink string
}

type lost int

const (
	buried   lost = iota // a dead letter from the start
	dropped              // for newer ones
	outgrew              // dead_letter.max_bytes
	outlived             // dead_letter.max_age
)

func newWatcher(deliveries *deliver.Metrics, letters *redrive.Metrics, limits map[string]queue.Limits, logger *slog.Logger) *watcher {
	w := &watcher{
		deliveries: deliveries, letters: letters, logger: logger,
		summaries: make(map[loss]*summary.Summary[event.Reason]),
	}
	w.limits.Store(&limits)
	return w
}

// use says which limits there are from now on.
func (w *watcher) use(limits map[string]queue.Limits) { w.limits.Store(&limits) }

// DeadLetter implements queue.Watcher.
func (w *watcher) DeadLetter(sink string, reason event.Reason) {
	w.deliveries.DeadLetter(sink, reason)
	w.add(loss{buried, sink}, 1, reason)
}

// Dropped implements queue.Watcher.
func (w *watcher) Dropped(sink string, n int) {
	w.deliveries.Dropped(sink, n)
	w.add(loss{dropped, sink}, n, "")
}

// Discarded implements queue.Watcher.
func (w *watcher) Discarded(sink string, aged bool, n int) {
	if aged {
		w.letters.Discarded(sink, redrive.CauseAge, n)
		w.add(loss{outlived, sink}, n, "")
		return
	}
	w.letters.Discarded(sink, redrive.CauseSize, n)
	w.add(loss{outgrew, sink}, n, "")
}

func (w *watcher) add(l loss, n int, reason event.Reason) {
	w.mu.Lock()
	s := w.summaries[l]
	if s == nil {
		s = summary.New(func(count int, latest event.Reason) { w.tell(l, count, latest) })
		w.summaries[l] = s
	}
	w.mu.Unlock()
	s.Add(n, reason)
}

func (w *watcher) tell(l loss, count int, latest event.Reason) {
	logger, limits := w.logger.With("sink", l.sink), (*w.limits.Load())[l.sink]
	switch l.what {
	case buried:
		logger.Warn("deliveries became dead letters", "count", count, "reason", string(latest))
	case dropped:
		logger.Warn("deliveries were dropped for newer ones: mend the receiver, or raise max_backlog",
			"count", count, "limit_bytes", limits.MaxBacklog)
	case outgrew:
		logger.Error("dead letters were deleted for good, the oldest, for want of room: mend the receiver and redrive, or raise dead_letter.max_bytes",
			"count", count, "limit_bytes", limits.DeadMaxBytes)
	case outlived:
		logger.Warn("dead letters were deleted for good at the end of dead_letter.max_age: redrive them sooner, or raise it",
			"count", count, "limit", limits.DeadMaxAge)
	}
}

// stop tells what has not been told yet.
func (w *watcher) stop() {
	w.mu.Lock()
	all := slices.Collect(maps.Values(w.summaries))
	w.mu.Unlock()
	for _, s := range all {
		s.Stop()
	}
}
