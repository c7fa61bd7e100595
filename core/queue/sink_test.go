package queue

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"go.uber.org/goleak"
)

func takeOne(t testing.TB, q *Embedded, sink string, lease time.Duration) Leased {
	t.Helper()
	ls, err := q.Take(context.Background(), sink, Want{MaxEvents: 1, Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	return ls[0]
}

// bubble runs f with a queue in memory, in fake time.
func bubble(t *testing.T, o Options, f func(t *testing.T, q *Embedded)) {
	synctest.Test(t, func(t *testing.T) {
		o.Dir, o.fs = "/q", vfs.NewMem()
		q, err := Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		f(t, q)
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestLeaseExpiry(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		start := time.Now()
		if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
			t.Fatal(err)
		}
		first := takeOne(t, q, "audit", time.Minute)
		time.Sleep(50 * time.Second)
		if err := q.Extend(t.Context(), []Lease{first.Lease}, 2*time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := q.Extend(t.Context(), []Lease{first.Lease}, time.Minute); err != nil {
			t.Fatal(err)
		}
		// The taker is woken by nothing but the end of the lease.
		second := takeOne(t, q, "audit", time.Minute)
		if waited := time.Since(start); waited != 110*time.Second {
			t.Errorf("it came back after %s, want 1m50s", waited)
		}
		if err := q.Settle(t.Context(), []Settlement{{Lease: first.Lease, Delivered: true}}); !errors.Is(err, ErrStale) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if st := q.Stats().Sinks["audit"]; st.Pending != 1 || st.InFlight != 0 {
			t.Errorf("after the lease ran out: %+v", st)
		}
		if err := q.Extend(t.Context(), []Lease{second.Lease}, time.Minute); !errors.Is(err, ErrStale) {
			t.Error(err)
		}
	})
}

// Several takers wait; each due time wakes one, also after another gave up.
func TestTakersWaitForDueTimes(t *testing.T) {
	bubble(t, Options{WindowEvents: 2}, func(t *testing.T, q *Embedded) {
		start := time.Now()
		const n = 9
		for i := range n {
			if err := q.Append(t.Context(), benchEvent(uint64(i+1)), toAudit); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			l := takeOne(t, q, "audit", time.Hour)
			at := start.Add(time.Duration(n-i) * time.Minute)
			if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Retry: &Retry{At: at, Error: "x"}, Attempts: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		got := make(chan time.Duration, n)
		for range n {
			go func() {
				takeOne(t, q, "audit", 24*time.Hour)
				got <- time.Since(start)
			}()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		for range 3 {
			go func() { _, _ = q.Take(ctx, "audit", Want{MaxEvents: 1, Lease: time.Nanosecond}) }()
		}
		for i := range n {
			want := time.Duration(i+1) * time.Minute
			// One that the others took for a nanosecond comes that much later.
			if d := <-got; d < want || d > want+time.Microsecond {
				t.Errorf("delivery %d came after %s, want %s", i, d, want)
			}
		}
	})
}

// A taker that waits since before a delivery was leased gets it when the lease
// runs out, and when it is due again.
func TestWaitingTakerSeesLaterTimes(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		for i := range 2 {
			if err := q.Append(t.Context(), benchEvent(uint64(i+1)), toAudit); err != nil {
				t.Fatal(err)
			}
		}
		first := takeOne(t, q, "audit", time.Hour)
		start := time.Now()
		got := make(chan time.Duration, 3)
		second := takeOne(t, q, "audit", time.Hour)
		if err := q.Extend(t.Context(), []Lease{first.Lease, second.Lease}, 100*time.Hour); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			go func() {
				takeOne(t, q, "audit", 1000*time.Hour)
				got <- time.Since(start)
			}()
		}
		synctest.Wait() // all wait for the far end of the leases
		if err := q.Extend(t.Context(), []Lease{first.Lease}, time.Minute); err != nil {
			t.Fatal(err)
		}
		retry := Settlement{Lease: second.Lease, Retry: &Retry{At: start.Add(time.Hour), Error: "x"}, Attempts: 1}
		if err := q.Settle(t.Context(), []Settlement{retry}); err != nil {
			t.Fatal(err)
		}
		go func() { // is handed to one that waits, then leased anew
			time.Sleep(2 * time.Hour)
			if err := q.Append(t.Context(), benchEvent(3), toAudit); err != nil {
				t.Error(err)
			}
		}()
		for _, want := range []time.Duration{time.Minute, time.Hour, 2 * time.Hour} {
			if d := <-got; d != want {
				t.Errorf("a delivery came after %s, want %s", d, want)
			}
		}
		// Nothing was leased when this one began to wait.
		if err := q.Append(t.Context(), benchEvent(4), []event.Route{{Pipeline: "p", Sink: "other"}}); err != nil {
			t.Fatal(err)
		}
		held := takeOne(t, q, "other", time.Hour)
		go func() {
			takeOne(t, q, "other", time.Hour)
			got <- 0
		}()
		synctest.Wait()
		if err := q.Extend(t.Context(), []Lease{held.Lease}, time.Second); err != nil {
			t.Fatal(err)
		}
		before := time.Now()
		<-got
		if d := time.Since(before); d != time.Second {
			t.Errorf("after a shorter lease it came after %s, want 1s", d)
		}
	})
}

// A taker that waits on an empty sink watches what another one leases.
func TestWaitingTakerSeesLeases(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		got := make(chan time.Duration)
		start := time.Now()
		for range 2 { // one leases it, the other is left waiting
			go func() {
				takeOne(t, q, "audit", time.Minute)
				got <- time.Since(start)
			}()
		}
		synctest.Wait()
		if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
			t.Fatal(err)
		}
		if a, b := <-got, <-got; a != 0 || b != time.Minute {
			t.Errorf("handed out after %s and %s, want 0s and 1m0s", a, b)
		}
	})
}

// A taker that waits sees a suspect that is given back, or whose lease runs out.
func TestWaitingTakerSeesSuspects(t *testing.T) {
	for _, givenBack := range []bool{true, false} {
		bubble(t, Options{}, func(t *testing.T, q *Embedded) {
			if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
				t.Fatal(err)
			}
			s := Suspicion{Crashes: 1}
			l := takeOne(t, q, "audit", time.Hour)
			st := Settlement{Lease: l.Lease, Retry: &Retry{At: time.Now(), Error: "x"}, Suspicion: s}
			if err := q.Settle(t.Context(), []Settlement{st}); err != nil {
				t.Fatal(err)
			}
			l = takeOne(t, q, "audit", time.Hour)
			began := time.Now()
			got := make(chan Suspicion, 1)
			go func() { got <- takeOne(t, q, "audit", time.Hour).Suspicion }()
			synctest.Wait()
			want := time.Hour
			if givenBack {
				want = 0
				st := Settlement{Lease: l.Lease, Retry: &Retry{At: began}, Suspicion: s}
				if err := q.Settle(t.Context(), []Settlement{st}); err != nil {
					t.Fatal(err)
				}
			}
			if again := <-got; again != s || time.Since(began) != want {
				t.Errorf("%+v came after %v, want %+v after %v", again, time.Since(began), s, want)
			}
		})
	}
}

// What is due again and what was never tried take turns.
func TestNothingStarves(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		for i := range 40 {
			if err := q.Append(t.Context(), benchEvent(uint64(i+1)), toAudit); err != nil {
				t.Fatal(err)
			}
			if i < 20 {
				l := takeOne(t, q, "audit", time.Hour)
				if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Retry: &Retry{At: time.Now(), Error: "x"}, Attempts: 1}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		tried := 0
		for range 10 {
			tried += takeOne(t, q, "audit", time.Hour).Attempts
		}
		if tried != 5 {
			t.Errorf("%d of 10 were tried before, want 5", tried)
		}
	})
}

// A delivery keeps its last error when it goes on without a new attempt.
func TestLastErrorIsKept(t *testing.T) {
	q := openBench(t, Options{Dir: "/q", fs: vfs.NewMem()})
	if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
		t.Fatal(err)
	}
	settle := func(r Retry, attempts int) {
		l := takeOne(t, q, "audit", time.Hour)
		if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Retry: &r, Attempts: attempts}}); err != nil {
			t.Fatal(err)
		}
	}
	settle(Retry{At: time.Now(), Error: strings.Repeat("é", event.MaxErrorLen)}, 1)
	settle(Retry{At: time.Now().Add(time.Millisecond)}, 1)
	it, err := q.store.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = it.Close() }()
	if !it.SeekGE([]byte{spaceDelayed}) {
		t.Fatal("nothing is delayed")
	}
	r, err := decodeDelivery(it.Value())
	if err != nil || r.err != strings.Repeat("é", event.MaxErrorLen/2) || r.attempts != 1 {
		t.Fatalf("%d attempts, %d bytes, %v", r.attempts, len(r.err), err)
	}
}

// A sink that is not configured any more keeps what it has.
func TestOrphans(t *testing.T) {
	mem := vfs.NewMem()
	q := openBench(t, Options{Dir: "/q", Sinks: map[string]Limits{"old": {}}, fs: mem})
	if err := q.Append(t.Context(), benchEvent(1), []event.Route{{Pipeline: "p", Sink: "old"}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = openBench(t, Options{Dir: "/q", Sinks: map[string]Limits{"new": {}}, fs: mem})
	st := q.Stats()
	if st.Sinks["old"].Pending != 1 || len(st.Sinks) != 2 {
		t.Fatalf("%+v", st)
	}
	takeOne(t, q, "old", time.Minute)
}

// A caller that gives up before its commit began has changed nothing; one that
// gives up later learns what became of it.
func TestContextEndsBeforeTheCommit(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	f := &faults{kinds: map[errorfs.OpKind]bool{errorfs.OpFileSync: true, errorfs.OpFileSyncData: true}, part: ".log", hang: make(chan struct{})}
	q := openBench(t, Options{Dir: "/q", fs: errorfs.Wrap(vfs.NewMem(), f)})
	if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
		t.Fatal(err)
	}
	l := takeOne(t, q, "audit", time.Hour)
	f.on.Store(true)
	begun := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { begun <- q.Append(ctx, benchEvent(2), toAudit) }()
	for q.eventsApplied() < 2 {
		runtime.Gosched()
	}
	waits := make(chan error, 2)
	go func() { waits <- q.Append(ctx, benchEvent(3), toAudit) }()
	go func() { waits <- q.Settle(ctx, []Settlement{{Lease: l.Lease, Delivered: true}}) }()
	for q.groups.waiting() < 2 {
		runtime.Gosched()
	}
	cancel()
	for range 2 {
		if err := <-waits; !errors.Is(err, context.Canceled) {
			t.Errorf("a request in line: %v", err)
		}
	}
	close(f.hang)
	if err := <-begun; err != nil {
		t.Errorf("the one that had begun: %v", err)
	}
	if st := q.Stats().Sinks["audit"]; st.Pending != 1 || st.InFlight != 1 {
		t.Errorf("%+v", st)
	}
	if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
		t.Errorf("the lease is still held: %v", err)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// eventsApplied is how many events are in the store, synced or not.
func (q *Embedded) eventsApplied() int {
	it, err := q.store.NewIter(nil)
	if err != nil {
		return 0
	}
	defer func() { _ = it.Close() }()
	n := 0
	for ok := it.SeekGE([]byte{spaceEvent}); ok && it.Key()[0] == spaceEvent; ok = it.Next() {
		n++
	}
	return n
}

// The window of a sink stays within its bounds, whatever the backlog, and so do
// the delayed ones.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	q := openBench(t, Options{WindowEvents: 50, WindowBytes: 20_000})
	const n = 2000
	check := func() {
		t.Helper()
		s := q.knownSink("audit")
		s.mu.Lock()
		defer s.mu.Unlock()
		if w := len(s.fresh) - s.freshHead; w > 50 || s.freshBytes > 20_000+1000 || s.delayed.Len() > 100 || cap(s.fresh) > 500 || s.suspects.Len() > 50 {
			t.Fatalf("%d fresh with %d bytes, %d delayed and %d suspects in memory, room for %d",
				w, s.freshBytes, s.delayed.Len(), s.suspects.Len(), cap(s.fresh))
		}
	}
	inParallel(64, n, func(i uint64) {
		if err := q.Append(context.Background(), benchEvent(i), toAudit); err != nil {
			t.Error(err)
		}
	})
	check()
	for left := n; left > 0; {
		ls, err := q.Take(t.Context(), "audit", Want{MaxEvents: 100, MaxBytes: math.MaxInt, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		check()
		var ss []Settlement
		for _, l := range ls {
			if l.Attempts == 1 {
				ss = append(ss, Settlement{Lease: l.Lease, Delivered: true, Attempts: 2})
				left--
			} else {
				at := time.Now().Add(time.Duration(l.Lease.Seq*7919%1000) * time.Millisecond)
				st := Settlement{Lease: l.Lease, Retry: &Retry{At: at, Error: "x"}, Attempts: 1}
				if l.Lease.Seq%2 == 0 {
					st.Suspicion = Suspicion{Crashes: 1}
				}
				ss = append(ss, st)
			}
		}
		if err := q.Settle(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
		check()
	}
	if st := q.Stats(); st.Bytes != 0 || st.Sinks["audit"] != (SinkStats{Delivered: n}) {
		t.Fatalf("%+v", st)
	}

	// As many suspects as can be, all due.
	inParallel(64, n, func(i uint64) {
		if err := q.Append(context.Background(), benchEvent(i), toAudit); err != nil {
			t.Error(err)
		}
	})
	for left := n; left > 0; check() {
		ls, err := q.Take(t.Context(), "audit", Want{MaxEvents: 100, MaxBytes: math.MaxInt, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var ss []Settlement
		for _, l := range ls {
			st := Settlement{Lease: l.Lease, Attempts: 1, Delivered: l.Suspicion.Suspect()}
			if st.Delivered {
				left--
			} else {
				st.Retry, st.Suspicion = &Retry{At: time.Now(), Error: "x"}, Suspicion{Crashes: 1}
			}
			ss = append(ss, st)
		}
		if err := q.Settle(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
	}
	if st := q.Stats(); st.Bytes != 0 || st.Sinks["audit"] != (SinkStats{Delivered: 2 * n}) {
		t.Fatalf("%+v", st)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]Options{
		"no directory":        {},
		"limit is negative":   {Dir: "/q", MaxBytes: -1},
		"sink has no name":    {Dir: "/q", Sinks: map[string]Limits{"": {}}},
		"reserve is negative": {Dir: "/q", ReserveBytes: -1},
	} {
		if _, err := Open(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	q := openBench(t, Options{Dir: "/q", fs: vfs.NewMem()})
	for name, routes := range map[string][]event.Route{
		"too many": make([]event.Route, maxRoutes+1),
		"no sink":  {{Pipeline: "p"}},
	} {
		if err := q.Append(t.Context(), benchEvent(1), routes); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	large := benchEvent(1)
	large.Body = make([]byte, maxEventLen)
	if err := q.Append(t.Context(), large, toAudit); err == nil || !strings.Contains(err.Error(), fmt.Sprint(maxEventLen)) {
		t.Errorf("a large event: %v", err)
	}
	large.Body = large.Body[:32<<20] // larger than a memtable's half
	large.Body[5] = 7
	if err := q.Append(t.Context(), large, toAudit); err != nil {
		t.Fatal(err)
	}
	if l := takeOne(t, q, "audit", time.Minute); len(l.Event.Body) != 32<<20 || l.Event.Body[5] != 7 {
		t.Error("another body")
	}
}

// A settlement is synced soon, also where nothing follows it.
func TestSettlementsAreSyncedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewCrashableMem()
		q := openBench(t, Options{Dir: "/q", fs: mem})
		if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
			t.Fatal(err)
		}
		l := takeOne(t, q, "audit", time.Hour)
		if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
			t.Fatal(err)
		}
		pending := func() int64 {
			t.Helper()
			again, err := Open(t.Context(), Options{Dir: "/q", fs: mem.CrashClone(vfs.CrashCloneCfg{})})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = again.Close() }()
			return again.Stats().Sinks["audit"].Pending
		}
		if n := pending(); n != 1 {
			t.Errorf("%d pending after a power cut at once, want 1: it was synced, which costs", n)
		}
		time.Sleep(maxUnsynced + time.Millisecond)
		synctest.Wait()
		if n := pending(); n != 0 {
			t.Errorf("%d pending after a power cut later, want 0", n)
		}
	})
}
