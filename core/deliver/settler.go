package deliver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/callbackd/callbackd/core/queue"
)

// settler passes settlements to the queue, as many at a time as there are, so
// that nobody who reads results waits for a commit. It also holds the leases of
// what is in flight and extends them.
type settler struct {
	queue  Queue
	window *window
	logger *slog.Logger

	mu       sync.Mutex
	ready    []queue.Settlement
	held     map[queue.Lease]int // with the bytes of their events
	finished bool
	wake     chan struct{} // holds a token when ready or finished changed
}

func newSettler(q Queue, w *window, logger *slog.Logger) *settler {
	return &settler{
		queue: q, window: w, logger: logger,
		held: make(map[queue.Lease]int),
		wake: make(chan struct{}, 1),
	}
}

// hold takes what was leased into its care.
func (s *settler) hold(batch []queue.Leased) {
	s.mu.Lock()
	defer s.mu.Unlock()
	bytes := 0
	for i := range batch {
		s.held[batch[i].Lease] = len(batch[i].Event.Body)
		bytes += len(batch[i].Event.Body)
	}
	s.window.took(len(batch), bytes)
}

func (s *settler) settle(x queue.Settlement) {
	s.mu.Lock()
	s.ready = append(s.ready, x)
	bytes := s.held[x.Lease]
	delete(s.held, x.Lease)
	s.mu.Unlock()
	s.window.ended(bytes)
	s.signal()
}

// giveBack returns a delivery without an attempt: it is due at once.
func (s *settler) giveBack(l *queue.Leased) {
	s.settle(queue.Settlement{Lease: l.Lease, Attempts: l.Attempts, Suspicion: l.Suspicion, Retry: &queue.Retry{At: time.Now()}})
}

// finish says that nothing more comes: run returns when all is settled.
func (s *settler) finish() {
	s.mu.Lock()
	s.finished = true
	s.mu.Unlock()
	s.signal()
}

func (s *settler) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run settles until finish. It does not end with the attempts' context: what is
// known is settled also when the grace period is over. After an error of the
// queue's nothing can be settled, and what comes is let go.
func (s *settler) run(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	extend := time.NewTicker(leaseTime / 3)
	defer extend.Stop()
	var broken error
	var spare []queue.Settlement
	for {
		select {
		case <-s.wake:
		case <-extend.C:
			s.extend(ctx)
		}
		for {
			s.mu.Lock()
			batch, finished := s.ready, s.finished
			s.ready = spare[:0]
			s.mu.Unlock()
			if len(batch) == 0 {
				if finished {
					return broken
				}
				spare = batch
				break
			}
			if broken == nil {
				broken = s.commit(ctx, batch)
			}
			s.window.settled(len(batch))
			clear(batch)
			spare = batch
		}
	}
}

func (s *settler) commit(ctx context.Context, batch []queue.Settlement) error {
	err := s.queue.Settle(ctx, batch)
	switch {
	case err == nil:
	case errors.Is(err, queue.ErrFailed), errors.Is(err, queue.ErrClosed):
		return fmt.Errorf("settle: %w", err)
	case errors.Is(err, queue.ErrStale):
		// Somebody else has the delivery by now and settles it.
		s.logger.Debug("a lease ran out before its delivery was settled", "error", err)
	default:
		return fmt.Errorf("settle: %w", err)
	}
	return nil
}

func (s *settler) extend(ctx context.Context) {
	s.mu.Lock()
	leases := make([]queue.Lease, 0, len(s.held))
	for l := range s.held {
		leases = append(leases, l)
	}
	s.mu.Unlock()
	if len(leases) == 0 {
		return
	}
	if err := s.queue.Extend(ctx, leases, leaseTime); err != nil {
		s.logger.Debug("some leases could not be extended", "error", err)
	}
}
