package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
)

func ordered(sink, key string) event.Route {
	return event.Route{Pipeline: "p", Sink: sink, Order: event.OrderKey(key)}
}

// is checks that the leases are those of the events.
func (f *fixture) is(ls []queue.Leased, evs ...*event.Event) {
	f.Helper()
	if len(ls) != len(evs) {
		f.Fatalf("%d deliveries were handed out, want %d", len(ls), len(evs))
	}
	for i, l := range ls {
		if l.Event.ID != evs[i].ID {
			f.Fatalf("delivery %d is of event %s, want %s", i, l.Event.ID, evs[i].ID)
		}
	}
}

// takeDue takes what is due without waiting for more.
func (f *fixture) takeDue(sink string, want queue.Want) []queue.Leased {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	ls, err := f.q.Take(ctx, sink, want)
	if err != nil {
		f.Fatalf("take: %v", err)
	}
	return ls
}

func testOrderKey(_ *testing.T, f *fixture) {
	a1, a2 := f.append(ordered("a", "A")), f.append(ordered("a", "A"))
	b1, a3, b2 := f.append(ordered("a", "B")), f.append(ordered("a", "A")), f.append(ordered("a", "B"))
	free := f.append(to("a")...)
	ls := f.take("a", 3, wide())
	f.is(ls, a1, b1, free) // the others are not held up
	for i, l := range ls {
		if l.Ordered != (i < 2) {
			f.Fatalf("delivery %d: Ordered is %v", i, l.Ordered)
		}
	}
	f.none("a")
	f.settle(delivered(ls[0]))
	next := f.take("a", 1, wide())
	f.is(next, a2)
	f.none("a")
	f.settle(delivered(ls[1]), delivered(next[0]))
	rest := f.take("a", 2, wide())
	if rest[0].Event.ID != a3.ID {
		rest[0], rest[1] = rest[1], rest[0]
	}
	f.is(rest, a3, b2)
	f.settle(delivered(rest[0]), delivered(rest[1]), delivered(ls[2]))
	f.wantStats("a", queue.SinkStats{})
	// The same key goes on for others, and is another one for another sink.
	a4, other := f.append(ordered("a", "A")), f.append(ordered("b", "A"))
	f.is(f.take("a", 1, wide()), a4)
	f.is(f.take("b", 1, wide()), other)
}

// A key waits as long as its first one is not settled for good, whatever becomes of
// that one, and across a restart.
func testOrderWaits(_ *testing.T, f *fixture) {
	first := f.append(ordered("a", "A"))
	f.append(ordered("a", "A"))
	f.append(ordered("a", "A"))
	l := f.take("a", 1, wide())
	f.is(l, first)
	f.settle(queue.Settlement{Lease: l[0].Lease, Retry: &queue.Retry{At: time.Now()}}) // given back
	short := wide()
	short.Lease = 20 * time.Millisecond
	f.is(f.take("a", 1, short), first) // runs out
	l = f.take("a", 1, wide())
	f.is(l, first)
	due := time.Now().Add(60 * time.Millisecond)
	f.settle(retry(l[0], due))
	f.none("a")
	l = f.take("a", 1, wide())
	f.is(l, first)
	if time.Now().Before(due) || l[0].Attempts != 1 || !l[0].Ordered {
		f.Fatalf("too early, or %+v", l[0])
	}
	f.settle(suspect(l[0], time.Now(), queue.Suspicion{Crashes: 1}))
	l = f.take("a", 1, wide())
	f.is(l, first)
	f.settle(retry(l[0], time.Now().Add(time.Hour)))
	f.append(ordered("a", "A"))
	other := f.append(ordered("a", "B"))
	f.is(f.take("a", 1, wide()), other)
	f.reopen()
	f.is(f.take("a", 1, wide()), other)
	f.none("a")
	if st := f.stats("a"); st.Pending+st.Delayed+st.InFlight != 5 {
		f.Fatalf("stats: %+v, want 5 that are not settled", st)
	}
}

func testOrderGoesOn(_ *testing.T, f *fixture) {
	var evs []*event.Event
	for range 6 {
		evs = append(evs, f.append(ordered("a", "A")))
	}
	for i, ev := range evs {
		l := f.take("a", 1, wide())
		f.is(l, ev)
		if i%2 == 0 {
			f.settle(retry(l[0], time.Now()))
			l = f.takeDue("a", wide())
			f.is(l, ev)
		}
		if i%3 == 2 {
			f.reopen()
			l = f.take("a", 1, wide())
			f.is(l, ev)
		}
		f.settle(dead(l[0])) // a dead one lets its key go on
	}
	f.none("a")
	f.wantStats("a", queue.SinkStats{Dead: 6})

	// What is redriven comes without order, beside the one whose turn it is.
	head := f.append(ordered("a", "A"))
	waits := f.append(ordered("a", "A"))
	var keys []queue.DeadKey
	for _, d := range f.deadLetters("a")[:3] {
		keys = append(keys, d.Key)
	}
	if n, err := f.q.Redrive(f.Context(), keys); err != nil || n != 3 {
		f.Fatalf("redrive: %d, %v", n, err)
	}
	got := make(map[ulid.ULID]queue.Leased)
	for _, l := range f.take("a", 4, wide()) {
		got[l.Event.ID] = l
	}
	for i, ev := range append(evs[:3:3], head) {
		if l, ok := got[ev.ID]; !ok || l.Ordered != (i == 3) {
			f.Fatalf("event %d: %v, %+v", i, ok, l)
		}
	}
	f.none("a")
	f.settle(delivered(got[head.ID]))
	f.is(f.take("a", 1, wide()), waits)
}

// Rows of the same key that are longer than any window, several takers, and all ways
// of settling: each key goes in order, and all come.
func testOrderRows(_ *testing.T, f *fixture) {
	const keys, rows = 3, 20
	want := make(map[string][]ulid.ULID)
	key := make(map[ulid.ULID]string)
	for i := range keys * rows {
		k := fmt.Sprint("K", (i*i)%keys)
		ev := f.append(ordered("a", k))
		want[k], key[ev.ID] = append(want[k], ev.ID), k
	}
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	left := keys * rows
	var wg sync.WaitGroup
	for w := range 3 {
		wg.Go(func() {
			for n := w; ; n++ {
				ls, err := f.q.Take(ctx, "a", queue.Want{MaxEvents: 5, MaxBytes: 1 << 20, Lease: time.Minute})
				if err != nil {
					return
				}
				var ss []queue.Settlement
				mu.Lock()
				for i, l := range ls {
					k := key[l.Event.ID]
					if want[k][0] != l.Event.ID {
						f.Errorf("event %s of %s came before %s", l.Event.ID, k, want[k][0])
					}
					switch (n + i) % 4 {
					case 0:
						ss = append(ss, retry(l, time.Now()))
						continue
					case 1:
						ss = append(ss, dead(l))
					default:
						ss = append(ss, delivered(l))
					}
					want[k] = want[k][1:]
					if len(want[k]) == 0 {
						want[k] = []ulid.ULID{{}}
					}
					left--
				}
				mu.Unlock()
				if err := f.q.Settle(context.Background(), ss); err != nil && !errors.Is(err, queue.ErrClosed) {
					f.Error(err)
				}
				mu.Lock()
				if left == 0 {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if left != 0 {
		f.Fatalf("%d never came", left)
	}
}
