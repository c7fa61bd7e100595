// Package queuetest is the contract of queue.Queue as tests that every engine
// runs. It knows the interface only.
package queuetest

import (
	"bytes"
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

// Open opens the queue in dir, with the sinks "a" and "b", of which nothing is
// bounded, and a watcher. It is called again for the same dir after the queue was
// closed.
type Open func(t *testing.T, dir string, watcher queue.Watcher) queue.Queue

// Run runs the contract.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, f *fixture)
	}{
		{"an event comes back as it was", testRoundTrip},
		{"no routes, nothing kept", testNoRoutes},
		{"order of acceptance", testOrder},
		{"limits of a batch", testLimits},
		{"take waits for an append", testTakeWaits},
		{"take ends with its context", testTakeContext},
		{"several takers share", testTakers},
		{"settling twice is stale and harmless", testSettleTwice},
		{"a lease that ran out is handed out again", testExpiry},
		{"an extended lease is kept", testExtend},
		{"retry comes when it is due", testRetry},
		{"given back untried", testGiveBack},
		{"a suspicion is kept until it is lifted", testSuspicion},
		{"a suspect is handed out alone", testSuspectAlone},
		{"a suspect given back is one still", testSuspectGivenBack},
		{"what was delivered is counted", testDelivered},
		{"what is dropped is gone and counts as nothing", testDrop},
		{"dead letters are kept", testDead},
		{"dead from the start", testDeadFromStart},
		{"what is not settled survives", testReopen},
		{"bytes come back", testBytes},
		{"sinks do not share settlements", testFanOut},
		{"wrong settlements are refused", testWrongSettlement},
		{"one at a time of an order key", testOrderKey},
		{"an order key waits for its first", testOrderWaits},
		{"an order key goes on after a dead letter", testOrderGoesOn},
		{"long rows of an order key", testOrderRows},
		{"filters of dead letters", testFilters},
		{"many dead letters", testManyLetters},
		{"a dead letter by its id", testLetterByID},
		{"redrive", testRedrive},
		{"discard", testDiscard},
		{"redrive and discard at once", testRedriveAtOnce},
		{"a full backlog refuses", testRefuseNew},
		{"a full backlog makes dead letters", testBuryNew},
		{"a full backlog drops its oldest", testDropOldest},
		{"a full backlog drops those never tried first", testDropOldestOrder},
		{"an event larger than the backlog", testTooLargeForTheBacklog},
		{"bytes of dead letters", testDeadMaxBytes},
		{"limits change", testConfigure},
		{"once", testOnce},
		{"once, within a window", testOnceWindow},
		{"once, of many at once", testOnceAtOnce},
		{"notes", testNotes},
		{"close ends waiting calls", testClose},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{T: t, open: open, dir: t.TempDir()}
			f.reopen()
			t.Cleanup(func() { _ = f.q.Close() })
			c.test(t, f)
		})
	}
}

type fixture struct {
	*testing.T
	open    Open
	dir     string
	q       queue.Queue
	n       uint16
	watcher watcher
}

func (f *fixture) reopen() {
	f.Helper()
	if f.q != nil {
		if err := f.q.Close(); err != nil {
			f.Fatalf("close: %v", err)
		}
	}
	f.q = f.open(f.T, f.dir, &f.watcher)
}

func (f *fixture) event() *event.Event {
	f.n++
	at := time.Now().Add(-time.Minute).Truncate(time.Millisecond).UTC()
	return &event.Event{
		ID: ulid.ULID{0: 1, 14: byte(f.n >> 8), 15: byte(f.n)}, Source: "chat", Type: "t", Time: at, Accepted: at.Add(time.Nanosecond),
		Body: fmt.Appendf(nil, "body %04d", f.n),
	}
}

func to(sinks ...string) []event.Route {
	var rs []event.Route
	for _, s := range sinks {
		rs = append(rs, event.Route{Pipeline: "p", Sink: s})
	}
	return rs
}

func (f *fixture) append(routes ...event.Route) *event.Event {
	f.Helper()
	ev := f.event()
	if err := f.q.Append(f.Context(), ev, routes); err != nil {
		f.Fatalf("append: %v", err)
	}
	return ev
}

// wide takes all there is in these tests.
func wide() queue.Want { return queue.Want{MaxEvents: 100, MaxBytes: 1 << 20, Lease: time.Minute} }

// take takes exactly n deliveries.
func (f *fixture) take(sink string, n int, want queue.Want) []queue.Leased {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	var out []queue.Leased
	for len(out) < n {
		w := want
		w.MaxEvents = min(w.MaxEvents, n-len(out))
		ls, err := f.q.Take(ctx, sink, w)
		if err != nil {
			f.Fatalf("take %d of %d: %v", len(out)+1, n, err)
		}
		out = append(out, ls...)
	}
	return out
}

// none checks that nothing is due.
func (f *fixture) none(sink string) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), 30*time.Millisecond)
	defer cancel()
	ls, err := f.q.Take(ctx, sink, wide())
	if !errors.Is(err, context.DeadlineExceeded) {
		f.Fatalf("take: %d deliveries, %v; want none", len(ls), err)
	}
}

func (f *fixture) settle(ss ...queue.Settlement) {
	f.Helper()
	if err := f.q.Settle(f.Context(), ss); err != nil {
		f.Fatalf("settle: %v", err)
	}
}

func delivered(l queue.Leased) queue.Settlement {
	return queue.Settlement{Lease: l.Lease, Delivered: true, Attempts: l.Attempts + 1}
}

func retry(l queue.Leased, at time.Time) queue.Settlement {
	return queue.Settlement{Lease: l.Lease, Retry: &queue.Retry{At: at, Error: "no"}, Attempts: l.Attempts + 1}
}

func dead(l queue.Leased) queue.Settlement {
	return queue.Settlement{
		Lease: l.Lease, Dead: &event.Death{Reason: event.ReasonExhausted, Error: "gave up"}, Attempts: l.Attempts + 1,
	}
}

func (f *fixture) stats(sink string) queue.SinkStats {
	st := f.q.Stats().Sinks[sink]
	st.Bytes, st.DeadBytes, st.Delivered, st.Configured = 0, 0, 0, false
	return st
}

func (f *fixture) wantStats(sink string, want queue.SinkStats) {
	f.Helper()
	got := f.stats(sink)
	got.OldestPending, got.NextDue, got.WhenFull = want.OldestPending, want.NextDue, want.WhenFull
	got.BlockedKeys, got.Behind = want.BlockedKeys, want.Behind
	if got != want {
		f.Fatalf("stats of %s: %+v, want %+v", sink, got, want)
	}
}

func testRoundTrip(t *testing.T, f *fixture) {
	ev := &event.Event{
		ID: ulid.Make(), Source: "chat", Type: "Group.X", Subject: "g1",
		Time: time.UnixMilli(1700000000123).UTC(), Accepted: time.Unix(1700000001, 987654321).UTC(),
		RemoteAddr: "192.0.2.1", ContentType: "application/json",
		Headers: event.Pairs{{Name: "a", Value: "1"}, {Name: "b", Value: ""}},
		Query:   event.Pairs{{Name: "q", Value: "\xff"}},
		Body:    []byte("{\"a\": 1}\x00\xff"),
	}
	if err := f.q.Append(f.Context(), ev, to("a", "b")); err != nil {
		t.Fatal(err)
	}
	check := func(l queue.Leased) {
		t.Helper()
		got := l.Event
		if !bytes.Equal(got.Body, ev.Body) || fmt.Sprint(*got) != fmt.Sprint(*ev) {
			t.Fatalf("got  %+v\nwant %+v", *got, *ev)
		}
		if l.Pipeline != "p" || l.Attempts != 0 || !l.Since.Equal(ev.Accepted) {
			t.Fatalf("got %+v", l)
		}
	}
	check(f.take("a", 1, wide())[0])
	f.reopen()
	check(f.take("a", 1, wide())[0])
	check(f.take("b", 1, wide())[0])
}

func testNoRoutes(_ *testing.T, f *fixture) {
	f.append()
	if st := f.q.Stats(); st.Bytes != 0 {
		f.Fatalf("%d bytes are kept", st.Bytes)
	}
}

func testOrder(_ *testing.T, f *fixture) {
	var want []ulid.ULID
	for range 30 {
		want = append(want, f.append(to("a")...).ID)
	}
	for i, l := range f.take("a", 30, queue.Want{MaxEvents: 7, MaxBytes: 1 << 20, Lease: time.Minute}) {
		if l.Event.ID != want[i] {
			f.Fatalf("delivery %d is of event %s, want %s", i, l.Event.ID, want[i])
		}
	}
	f.none("a")
}

func testLimits(_ *testing.T, f *fixture) {
	for range 5 {
		f.append(to("a")...)
	}
	ls, err := f.q.Take(f.Context(), "a", queue.Want{MaxEvents: 3, MaxBytes: 1 << 20, Lease: time.Minute})
	if err != nil || len(ls) < 1 || len(ls) > 3 {
		f.Fatalf("%d, %v; want 1 to 3", len(ls), err)
	}
	ls, err = f.q.Take(f.Context(), "a", queue.Want{MaxEvents: 3, MaxBytes: 1, Lease: time.Minute})
	if err != nil || len(ls) != 1 {
		f.Fatalf("%d, %v; want one that exceeds the bytes", len(ls), err)
	}
}

func testTakeWaits(_ *testing.T, f *fixture) {
	got := make(chan error, 1)
	go func() {
		_, err := f.q.Take(f.Context(), "a", wide())
		got <- err
	}()
	f.append(to("a")...)
	if err := <-got; err != nil {
		f.Fatal(err)
	}
}

func testTakeContext(_ *testing.T, f *fixture) {
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if _, err := f.q.Take(ctx, "a", wide()); !errors.Is(err, context.Canceled) {
		f.Fatal(err)
	}
	if err := f.q.Append(ctx, f.event(), to("a")); !errors.Is(err, context.Canceled) {
		f.Fatal(err)
	}
	f.none("a")
}

func testTakers(_ *testing.T, f *fixture) {
	const n = 100
	seen := make(map[ulid.ULID]int)
	var mu sync.Mutex
	ctx, cancel := context.WithTimeout(f.Context(), 20*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				ls, err := f.q.Take(ctx, "a", queue.Want{MaxEvents: 3, MaxBytes: 1 << 20, Lease: time.Minute})
				if err != nil {
					return
				}
				mu.Lock()
				for _, l := range ls {
					seen[l.Event.ID]++
				}
				if len(seen) == n {
					cancel()
				}
				mu.Unlock()
			}
		})
	}
	for range n {
		f.append(to("a")...)
	}
	wg.Wait()
	for id, times := range seen {
		if times != 1 {
			f.Errorf("event %s was handed out %d times", id, times)
		}
	}
	if len(seen) != n {
		f.Errorf("%d of %d events were handed out", len(seen), n)
	}
}

func testSettleTwice(_ *testing.T, f *fixture) {
	f.append(to("a")...)
	other := f.append(to("a")...)
	l := f.take("a", 1, wide())[0]
	f.settle(delivered(l))
	next := f.take("a", 1, wide())[0]
	err := f.q.Settle(f.Context(), []queue.Settlement{delivered(l), delivered(next)})
	if !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	f.wantStats("a", queue.SinkStats{})
	if next.Event.ID != other.ID {
		f.Fatal("the wrong event")
	}
	if err := f.q.Settle(f.Context(), []queue.Settlement{retry(next, time.Now())}); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	f.none("a")
}

func testExpiry(_ *testing.T, f *fixture) {
	f.append(to("a")...)
	short := wide()
	short.Lease = 20 * time.Millisecond
	first := f.take("a", 1, short)[0]
	second := f.take("a", 1, wide())[0]
	if first.Event.ID != second.Event.ID || second.Attempts != 0 {
		f.Fatalf("got %+v, then %+v", first, second)
	}
	if err := f.q.Settle(f.Context(), []queue.Settlement{delivered(first)}); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	if err := f.q.Extend(f.Context(), []queue.Lease{first.Lease, second.Lease}, time.Minute); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	f.settle(delivered(second))
	f.wantStats("a", queue.SinkStats{})
}

func testExtend(_ *testing.T, f *fixture) {
	f.append(to("a")...)
	short := wide()
	short.Lease = 10 * time.Second
	l := f.take("a", 1, short)[0]
	if err := f.q.Extend(f.Context(), []queue.Lease{l.Lease}, time.Hour); err != nil {
		f.Fatal(err)
	}
	f.none("a")
	f.settle(delivered(l))
	if err := f.q.Extend(f.Context(), []queue.Lease{l.Lease}, time.Hour); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
}

func testRetry(_ *testing.T, f *fixture) {
	ev := f.append(to("a")...)
	l := f.take("a", 1, wide())[0]
	due := time.Now().Add(60 * time.Millisecond)
	f.settle(retry(l, due))
	f.wantStats("a", queue.SinkStats{Delayed: 1})
	again := f.take("a", 1, wide())[0]
	if time.Now().Before(due) {
		f.Error("it came before it was due")
	}
	if again.Event.ID != ev.ID || again.Attempts != 1 || !again.Since.Equal(ev.Accepted) {
		f.Fatalf("got %+v", again)
	}
	f.settle(retry(again, time.Now().Add(time.Hour)))
	f.none("a")
	f.reopen()
	f.none("a")
	f.wantStats("a", queue.SinkStats{Delayed: 1})
	if at := f.stats("a").OldestPending; !at.Equal(ev.Accepted) {
		f.Fatalf("the oldest is of %s, want %s", at, ev.Accepted)
	}
}

func testGiveBack(_ *testing.T, f *fixture) {
	f.append(to("a")...)
	f.append(to("a")...)
	ls := f.take("a", 2, wide())
	for _, l := range ls {
		f.settle(queue.Settlement{Lease: l.Lease, Retry: &queue.Retry{At: time.Now()}, Attempts: l.Attempts})
	}
	f.wantStats("a", queue.SinkStats{Pending: 2})
	again := f.take("a", 2, wide())
	for i, l := range again {
		if l.Attempts != 0 || l.Event.ID != ls[i].Event.ID {
			f.Fatalf("got %+v", l)
		}
	}
}

// suspect settles a lease so that it is tried again, as a suspect.
func suspect(l queue.Leased, at time.Time, s queue.Suspicion) queue.Settlement {
	return queue.Settlement{Lease: l.Lease, Retry: &queue.Retry{At: at, Error: "crash"}, Attempts: l.Attempts, Suspicion: s}
}

func testSuspicion(_ *testing.T, f *fixture) {
	ev := f.append(to("a")...)
	l := f.take("a", 1, wide())[0]
	if l.Suspicion.Suspect() {
		f.Fatalf("a new delivery has the suspicion %+v", l.Suspicion)
	}
	for _, s := range []queue.Suspicion{{Crashes: 1}, {Crashes: 3, Alone: 2, Delivered: 1 << 40}, {}} {
		f.settle(suspect(l, time.Now(), s))
		f.reopen()
		l = f.take("a", 1, wide())[0]
		if l.Event.ID != ev.ID || l.Suspicion != s || l.Attempts != 0 || l.Suspicion.Suspect() != (s.Crashes > 0) {
			f.Fatalf("got %+v, want the suspicion %+v", l, s)
		}
	}
	f.settle(suspect(l, time.Now(), queue.Suspicion{Crashes: 1}))
	l = f.take("a", 1, wide())[0]
	f.settle(dead(l))
	if letters := f.deadLetters("a"); len(letters) != 1 || letters[0].EventID != ev.ID {
		f.Fatalf("dead letters: %+v", letters)
	}
}

func testSuspectAlone(_ *testing.T, f *fixture) {
	for range 8 {
		f.append(to("a")...)
	}
	now := time.Now()
	suspects := map[ulid.ULID]bool{}
	for i, l := range f.take("a", 4, wide()) {
		if i%2 == 0 {
			suspects[l.Event.ID] = true
			f.settle(suspect(l, now, queue.Suspicion{Crashes: 1}))
		} else {
			f.settle(retry(l, now))
		}
	}
	for _, first := range []bool{true, false} {
		f.wantStats("a", queue.SinkStats{Pending: f.stats("a").Pending, Delayed: f.stats("a").Delayed})
		if st := f.stats("a"); st.Pending+st.Delayed != 8 {
			f.Fatalf("stats: %+v", st)
		}
		want := wide()
		want.SuspectsFirst = first
		var order []queue.Leased
		for len(order) < 8 {
			ls, err := f.q.Take(f.Context(), "a", want)
			if err != nil {
				f.Fatal(err)
			}
			for _, l := range ls {
				if l.Suspicion.Suspect() != suspects[l.Event.ID] || (suspects[l.Event.ID] && len(ls) > 1) {
					f.Fatalf("%+v is in a batch of %d", l, len(ls))
				}
			}
			order = append(order, ls...)
		}
		f.wantStats("a", queue.SinkStats{InFlight: 8})
		if got := order[0].Suspicion.Suspect(); got != first {
			f.Errorf("suspects first: %v, and the first is %+v", first, order[0])
		}
		f.reopen()
	}
}

func testSuspectGivenBack(_ *testing.T, f *fixture) {
	ev := f.append(to("a")...)
	s := queue.Suspicion{Crashes: 2, Alone: 1}
	f.settle(suspect(f.take("a", 1, wide())[0], time.Now(), s))
	l := f.take("a", 1, wide())[0]
	f.settle(queue.Settlement{Lease: l.Lease, Retry: &queue.Retry{At: time.Now()}, Attempts: l.Attempts, Suspicion: l.Suspicion})
	f.wantStats("a", queue.SinkStats{Pending: 1})
	short := wide()
	short.Lease = 20 * time.Millisecond
	first := f.take("a", 1, short)[0]
	again := f.take("a", 1, wide())[0]
	for _, l := range []queue.Leased{first, again} {
		if l.Event.ID != ev.ID || l.Suspicion != s {
			f.Fatalf("got %+v", l)
		}
	}
	if err := f.q.Settle(f.Context(), []queue.Settlement{delivered(first)}); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	// A suspicion that is lifted as the lease is given back is lifted.
	f.settle(queue.Settlement{Lease: again.Lease, Retry: &queue.Retry{At: time.Now()}, Attempts: again.Attempts})
	if l := f.take("a", 1, wide())[0]; l.Suspicion.Suspect() {
		f.Fatalf("got %+v", l)
	}
}

func testDelivered(_ *testing.T, f *fixture) {
	for range 3 {
		f.append(to("a", "b")...)
	}
	ls := f.take("a", 3, wide())
	f.settle(delivered(ls[0]), dead(ls[1]), retry(ls[2], time.Now()))
	f.settle(delivered(f.take("a", 1, wide())[0]))
	for range 2 {
		if a, b := f.q.Stats().Sinks["a"].Delivered, f.q.Stats().Sinks["b"].Delivered; a != 2 || b != 0 {
			f.Fatalf("%d and %d delivered, want 2 and 0", a, b)
		}
		f.reopen()
	}
}

func drop(l queue.Leased) queue.Settlement { return queue.Settlement{Lease: l.Lease, Drop: true} }

func testDrop(_ *testing.T, f *fixture) {
	for range 4 {
		f.append(to("a", "b")...)
	}
	ls := f.take("a", 4, wide())
	f.settle(drop(ls[0]), delivered(ls[1]), retry(ls[2], time.Now()), retry(ls[3], time.Now().Add(time.Hour)))
	f.settle(drop(f.take("a", 1, wide())[0]))
	for range 2 {
		if st := f.q.Stats().Sinks["a"]; st.Delivered != 1 || st.Dead != 0 || st.Delayed != 1 || st.Pending+st.InFlight != 0 {
			f.Fatalf("stats: %+v", st)
		}
		f.none("a")
		f.reopen()
	}
	if err := f.q.Settle(f.Context(), []queue.Settlement{drop(ls[0])}); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("%v, want ErrStale", err)
	}
	// The events are there for the other sink, and go with the last delivery.
	for _, l := range f.take("b", 4, wide()) {
		f.settle(drop(l))
	}
	if st := f.q.Stats(); st.Sinks["b"].Bytes != 0 || st.Sinks["b"].Delivered != 0 {
		f.Fatalf("stats: %+v", st)
	}

	// Order keys go on, with those that were tried and those that were not.
	ordered := event.Route{Pipeline: "p", Sink: "b", Order: event.OrderKey("k")}
	for range 4 {
		f.append(ordered)
	}
	for i := range 4 {
		l := f.take("b", 1, wide())[0]
		f.none("b")
		if i%2 == 0 {
			f.settle(retry(l, time.Now()))
			l = f.take("b", 1, wide())[0]
		}
		f.settle(drop(l))
	}
	f.none("b")
	f.wantStats("b", queue.SinkStats{})
}

func (f *fixture) deadLetters(sink string) []queue.DeadLetter {
	f.Helper()
	var out []queue.DeadLetter
	err := f.q.DeadLetters(f.Context(), queue.Filter{Sink: sink}, func(d queue.DeadLetter) bool {
		out = append(out, d)
		return true
	})
	if err != nil {
		f.Fatal(err)
	}
	return out
}

func testDead(_ *testing.T, f *fixture) {
	before := time.Now()
	first := f.append(to("a")...)
	f.append(to("b")...)
	third := f.append(to("a", "b")...)
	f.settle(dead(f.take("a", 1, wide())[0]))
	f.settle(dead(f.take("b", 1, wide())[0]))
	f.settle(dead(f.take("a", 1, wide())[0]))
	f.settle(delivered(f.take("b", 1, wide())[0]))
	check := func() {
		f.Helper()
		f.none("a")
		f.wantStats("a", queue.SinkStats{Dead: 2})
		f.wantStats("b", queue.SinkStats{Dead: 1})
		ls := f.deadLetters("a")
		if len(ls) != 2 || ls[0].EventID != first.ID || ls[1].EventID != third.ID {
			f.Fatalf("dead letters of a: %+v", ls)
		}
		d := ls[0]
		if d.ID != event.DeliveryID(first.ID, "p", "a") || d.Reason != event.ReasonExhausted || d.Error != "gave up" ||
			d.Attempts != 1 || d.Pipeline != "p" || d.Sink != "a" || !d.Accepted.Equal(first.Accepted) ||
			!bytes.Equal(d.Event.Body, first.Body) || d.Died.Before(before.Add(-time.Second)) || d.Died.After(time.Now()) {
			f.Fatalf("dead letter %+v", d)
		}
		if all := f.deadLetters(""); len(all) != 3 || all[1].Sink != "b" {
			f.Fatalf("all dead letters: %+v", all)
		}
	}
	check()
	f.reopen()
	check()
	n := 0
	err := f.q.DeadLetters(f.Context(), queue.Filter{}, func(queue.DeadLetter) bool { n++; return false })
	if err != nil || n != 1 {
		f.Fatalf("%d, %v; want to stop after one", n, err)
	}
}

func testDeadFromStart(_ *testing.T, f *fixture) {
	rs := append(to("a"), event.Route{Pipeline: "broken", Sink: "b", Dead: &event.Death{Reason: event.ReasonRoute, Error: "match"}})
	ev := f.append(rs...)
	f.none("b")
	ls := f.deadLetters("b")
	if len(ls) != 1 || ls[0].EventID != ev.ID || ls[0].Reason != event.ReasonRoute || ls[0].Attempts != 0 || ls[0].Pipeline != "broken" {
		f.Fatalf("dead letters: %+v", ls)
	}
	f.settle(delivered(f.take("a", 1, wide())[0]))
	if len(f.deadLetters("")) != 1 {
		f.Fatal("the dead letter went with the other delivery")
	}
}

func testReopen(_ *testing.T, f *fixture) {
	var evs []*event.Event
	for range 4 {
		evs = append(evs, f.append(to("a")...))
	}
	ls := f.take("a", 3, wide())
	f.settle(delivered(ls[0]), retry(ls[1], time.Now().Add(-time.Second)))
	f.reopen()
	f.wantStats("a", queue.SinkStats{Pending: f.stats("a").Pending, Delayed: f.stats("a").Delayed})
	if st := f.stats("a"); st.Pending+st.Delayed != 3 {
		f.Fatalf("stats after a restart: %+v", st)
	}
	attempts := make(map[ulid.ULID]int)
	for _, l := range f.take("a", 3, wide()) {
		attempts[l.Event.ID] = l.Attempts
	}
	want := map[ulid.ULID]int{evs[1].ID: 1, evs[2].ID: 0, evs[3].ID: 0}
	if fmt.Sprint(attempts) != fmt.Sprint(want) {
		f.Fatalf("attempts by event: %v, want %v", attempts, want)
	}
	if err := f.q.Settle(f.Context(), []queue.Settlement{delivered(ls[2])}); !errors.Is(err, queue.ErrStale) {
		f.Fatalf("a lease of before the restart: %v, want ErrStale", err)
	}
}

func testBytes(_ *testing.T, f *fixture) {
	f.append(to("a", "b", "b")...)
	if st := f.q.Stats(); st.Bytes == 0 || st.LimitBytes == 0 || st.Sinks["a"].Bytes == 0 {
		f.Fatalf("stats: %+v", st)
	}
	f.settle(delivered(f.take("a", 1, wide())[0]))
	bs := f.take("b", 2, wide())
	f.settle(delivered(bs[0]))
	f.settle(retry(bs[1], time.Now()))
	f.settle(delivered(f.take("b", 1, wide())[0]))
	st := f.q.Stats()
	if st.Bytes != 0 || st.Sinks["a"].Bytes != 0 || st.Sinks["b"].Bytes != 0 {
		f.Fatalf("stats after all is settled: %+v", st)
	}
}

func testFanOut(_ *testing.T, f *fixture) {
	ev := f.append(to("a", "b")...)
	f.settle(delivered(f.take("a", 1, wide())[0]))
	f.reopen()
	l := f.take("b", 1, wide())[0]
	if l.Event.ID != ev.ID || !bytes.Equal(l.Event.Body, ev.Body) {
		f.Fatalf("got %+v", l)
	}
	f.none("a")
	f.settle(delivered(l))
	f.reopen()
	f.none("a")
	f.none("b")
}

func testWrongSettlement(_ *testing.T, f *fixture) {
	f.append(to("a")...)
	l := f.take("a", 1, wide())[0]
	for _, st := range []queue.Settlement{
		{Lease: l.Lease},
		{Lease: l.Lease, Delivered: true, Retry: &queue.Retry{}},
		{Lease: l.Lease, Delivered: true, Drop: true},
		{Lease: l.Lease, Delivered: true, Attempts: -1},
		{Lease: l.Lease, Delivered: true, Suspicion: queue.Suspicion{Crashes: 1}},
		{Lease: l.Lease, Retry: &queue.Retry{}, Suspicion: queue.Suspicion{Crashes: 1, Alone: 2}},
		{Lease: l.Lease, Retry: &queue.Retry{}, Suspicion: queue.Suspicion{Delivered: 1}},
		{Lease: l.Lease, Retry: &queue.Retry{}, Suspicion: queue.Suspicion{Crashes: -1}},
	} {
		if err := f.q.Settle(f.Context(), []queue.Settlement{st}); err == nil || errors.Is(err, queue.ErrStale) {
			f.Errorf("settle %+v: %v", st, err)
		}
	}
	if _, err := f.q.Take(f.Context(), "a", queue.Want{MaxEvents: 1}); err == nil {
		f.Error("a take without a lease")
	}
	f.settle(delivered(l))
}

func testClose(_ *testing.T, f *fixture) {
	got := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := f.q.Take(context.Background(), "a", wide())
			got <- err
		}()
	}
	if err := f.q.Close(); err != nil {
		f.Fatal(err)
	}
	for range 2 {
		if err := <-got; !errors.Is(err, queue.ErrClosed) {
			f.Fatalf("%v, want ErrClosed", err)
		}
	}
	if err := f.q.Append(f.Context(), f.event(), to("a")); !errors.Is(err, queue.ErrClosed) {
		f.Fatalf("%v, want ErrClosed", err)
	}
	if err := f.q.Settle(f.Context(), nil); !errors.Is(err, queue.ErrClosed) {
		f.Fatalf("%v, want ErrClosed", err)
	}
	if err := f.q.Close(); err != nil {
		f.Fatalf("closing again: %v", err)
	}
}
