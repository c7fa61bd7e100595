package deliver_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/callbackd/callbackd/plugins/host"
	"github.com/oklog/ulid/v2"
)

// memQueue keeps deliveries of one sink in memory, with due times and leases.
type memQueue struct {
	mu       sync.Mutex
	items    map[uint64]*item
	last     uint64 // the newest one's number
	takes    int
	turn     bool // of those that were tried before
	changed  chan struct{}
	settled  []queue.Settlement
	extended int
	err      error
	// delivered is what Stats tells.
	delivered int64
}

type item struct {
	leased queue.Leased
	due    time.Time
	token  uint64
	held   bool
	again  bool // it was settled as to be tried again
}

func newMemQueue(n int) *memQueue {
	q := &memQueue{items: map[uint64]*item{}, changed: make(chan struct{})}
	for i := range n {
		q.add(fmt.Sprintf("event %d", i))
	}
	return q
}

func (q *memQueue) add(body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last++
	seq := q.last
	now := time.Now()
	ev := &event.Event{ID: ulid.MustNew(seq, noEntropy{}), Source: "s", Type: "t", Time: now, Accepted: now, Body: []byte(body)}
	q.items[seq] = &item{due: now, leased: queue.Leased{
		Lease: queue.Lease{Sink: "out", Seq: seq}, Event: ev, Pipeline: "p", Since: now,
	}}
	q.wake()
}

// noEntropy is entropy that is always zero.
type noEntropy struct{}

func (noEntropy) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func (q *memQueue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

func (q *memQueue) Take(ctx context.Context, _ string, want queue.Want) ([]queue.Leased, error) {
	for {
		q.mu.Lock()
		if q.err != nil {
			q.mu.Unlock()
			return nil, q.err
		}
		var out []queue.Leased
		var suspect *item
		next, bytes := time.Hour, 0
		var fresh, again []*item
		for _, it := range q.items {
			switch wait := time.Until(it.due); {
			case it.held:
			case wait > 0:
				next = min(next, wait)
			case it.leased.Suspicion.Suspect():
				if suspect == nil || it.due.Before(suspect.due) || (it.due.Equal(suspect.due) && it.leased.Lease.Seq < suspect.leased.Lease.Seq) {
					suspect = it
				}
			case it.again:
				again = append(again, it)
			default:
				fresh = append(fresh, it)
			}
		}
		if suspect != nil && want.SuspectsFirst {
			fresh, again = nil, nil
		}
		for _, it := range q.inTurns(fresh, again, want.MaxEvents) {
			if bytes += len(it.leased.Event.Body); len(out) > 0 && bytes > want.MaxBytes {
				break
			}
			it.held, it.token = true, it.token+1
			it.leased.Lease.Token = it.token
			out = append(out, it.leased)
		}
		if suspect != nil && len(out) == 0 {
			suspect.held, suspect.token = true, suspect.token+1
			suspect.leased.Lease.Token = suspect.token
			out = append(out, suspect.leased)
		}
		q.takes += len(out)
		changed := q.changed
		q.mu.Unlock()
		if len(out) > 0 {
			return out, nil
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-changed:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// inTurns returns up to most of both, in turns, as the queue does.
func (q *memQueue) inTurns(fresh, again []*item, most int) (out []*item) {
	slices.SortFunc(fresh, func(a, b *item) int { return cmp.Compare(a.leased.Lease.Seq, b.leased.Lease.Seq) })
	slices.SortFunc(again, func(a, b *item) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.leased.Lease.Seq, b.leased.Lease.Seq))
	})
	for len(out) < most && len(fresh)+len(again) > 0 {
		q.turn = !q.turn
		if len(fresh) == 0 || (q.turn && len(again) > 0) {
			out, again = append(out, again[0]), again[1:]
		} else {
			out, fresh = append(out, fresh[0]), fresh[1:]
		}
	}
	return out
}

func (q *memQueue) Stats() queue.Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return queue.Stats{Sinks: map[string]queue.SinkStats{"out": {Delivered: q.delivered}}}
}

// release ends all leases, as a restart does.
func (q *memQueue) release() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		it.held = false
	}
	q.wake()
}

// held is how many leases are held.
func (q *memQueue) held() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, it := range q.items {
		if it.held {
			n++
		}
	}
	return n
}

// taken is how many leases there ever were.
func (q *memQueue) taken() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takes
}

// suspicions returns those that are kept, by the bodies of their events.
func (q *memQueue) suspicions() map[string]queue.Suspicion {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := map[string]queue.Suspicion{}
	for _, it := range q.items {
		if it.leased.Suspicion != (queue.Suspicion{}) {
			out[string(it.leased.Event.Body)] = it.leased.Suspicion
		}
	}
	return out
}

func (q *memQueue) Settle(_ context.Context, settlements []queue.Settlement) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	for _, s := range settlements {
		it := q.items[s.Lease.Seq]
		if it == nil || !it.held || it.token != s.Lease.Token {
			return queue.ErrStale
		}
		q.settled = append(q.settled, s)
		if s.Delivered {
			q.delivered++
		}
		if s.Retry == nil {
			delete(q.items, s.Lease.Seq)
			continue
		}
		it.held, it.due, it.leased.Attempts, it.leased.Suspicion = false, s.Retry.At, s.Attempts, s.Suspicion
		it.again = it.again || s.Retry.Error != "" || s.Attempts > 0
	}
	q.wake()
	return nil
}

func (q *memQueue) Extend(_ context.Context, leases []queue.Lease, _ time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.extended += len(leases)
	return nil
}

func (q *memQueue) fail(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = err
	q.wake()
}

// ended counts settlements: delivered, retried, dead by reason.
func (q *memQueue) ended() map[string]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := map[string]int{}
	for _, s := range q.settled {
		switch {
		case s.Delivered:
			n["delivered"]++
		case s.Retry != nil:
			n["retry"]++
		default:
			n[string(s.Dead.Reason)]++
		}
	}
	return n
}

// fakeSink answers each call by a function.
type fakeSink struct {
	ready   chan struct{} // closed: ready
	deliver func(ctx context.Context, batch host.Batch, result func(host.Result)) error

	mu                sync.Mutex
	calls             [][]host.Delivery
	times             []time.Time
	events, maxEvents int // without a result
	open, maxOpen     int // calls
	restarts          uint64
}

func newFakeSink(deliver func(ctx context.Context, batch host.Batch, result func(host.Result)) error) *fakeSink {
	s := &fakeSink{ready: make(chan struct{}), deliver: deliver}
	close(s.ready)
	return s
}

// setReady makes it ready when ready is closed.
func (s *fakeSink) setReady(ready chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready = ready
}

func (s *fakeSink) WaitReady(ctx context.Context) error {
	s.mu.Lock()
	ready := s.ready
	s.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *fakeSink) State() host.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return host.State{Restarts: s.restarts}
}

func (s *fakeSink) Deliver(ctx context.Context, batch host.Batch, result func(host.Result)) error {
	s.mu.Lock()
	s.calls = append(s.calls, batch.Deliveries)
	s.times = append(s.times, time.Now())
	s.events += len(batch.Deliveries)
	s.open++
	s.maxEvents, s.maxOpen = max(s.maxEvents, s.events), max(s.maxOpen, s.open)
	s.mu.Unlock()
	left := len(batch.Deliveries)
	defer func() {
		s.mu.Lock()
		s.events -= left
		s.open--
		s.mu.Unlock()
	}()
	return s.deliver(ctx, batch, func(r host.Result) {
		s.mu.Lock()
		s.events--
		left--
		s.mu.Unlock()
		result(r)
	})
}

// all answers every delivery of a call with the same outcome.
func all(r host.Result) func(context.Context, host.Batch, func(host.Result)) error {
	return func(_ context.Context, batch host.Batch, result func(host.Result)) error {
		for i := range batch.Deliveries {
			r := r
			r.Index = i
			result(r)
		}
		return nil
	}
}

// inTurn answers the n-th call by the n-th function, later calls by the last.
func inTurn(fs ...func(context.Context, host.Batch, func(host.Result)) error) func(context.Context, host.Batch, func(host.Result)) error {
	var mu sync.Mutex
	n := 0
	return func(ctx context.Context, batch host.Batch, result func(host.Result)) error {
		mu.Lock()
		f := fs[min(n, len(fs)-1)]
		n++
		mu.Unlock()
		return f(ctx, batch, result)
	}
}

func noResult(err error) func(context.Context, host.Batch, func(host.Result)) error {
	return func(context.Context, host.Batch, func(host.Result)) error { return err }
}

func check(t *testing.T, q *memQueue, want map[string]int) {
	t.Helper()
	got := q.ended()
	for k, n := range want {
		if got[k] != n {
			t.Errorf("settled as %s: %d, want %d (all: %v)", k, got[k], n, got)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			t.Errorf("unexpectedly settled as %s: %v", k, got)
		}
	}
}
