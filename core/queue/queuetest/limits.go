package queuetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
	"github.com/oklog/ulid/v2"
)

// watcher counts what it is told.
type watcher struct {
	mu   sync.Mutex
	told map[string]int
}

func (w *watcher) add(n int, what ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == nil {
		w.told = make(map[string]int)
	}
	w.told[fmt.Sprint(what...)] += n
}

// DeadLetter implements queue.Watcher.
func (w *watcher) DeadLetter(sink string, reason event.Reason) { w.add(1, sink, " ", reason) }

// Dropped implements queue.Watcher.
func (w *watcher) Dropped(sink string, n int) { w.add(n, sink, " dropped") }

// Discarded implements queue.Watcher.
func (w *watcher) Discarded(sink string, aged bool, n int) {
	w.add(n, sink, " discarded, aged: ", aged)
}

// wantTold waits until the watcher was told that so many times, and nothing else.
func (f *fixture) wantTold(want map[string]int) {
	f.Helper()
	var told string
	for range 200 {
		f.watcher.mu.Lock()
		told = fmt.Sprint(f.watcher.told)
		f.watcher.mu.Unlock()
		if told == fmt.Sprint(want) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	f.Fatalf("the watcher was told %v, want %v", told, want)
}

// size is what one of the events of these tests takes of a backlog.
func (f *fixture) size() int64 {
	f.Helper()
	f.append(to("size")...)
	n := f.q.Stats().Sinks["size"].Bytes
	f.settle(delivered(f.take("size", 1, wide())[0]))
	if n <= 0 {
		f.Fatalf("a delivery takes %d bytes", n)
	}
	return n
}

// limit configures one sink.
func (f *fixture) limit(sink string, l queue.Limits) { f.q.Configure(map[string]queue.Limits{sink: l}) }

func testRefuseNew(_ *testing.T, f *fixture) {
	size := f.size()
	f.limit("a", queue.Limits{MaxBacklog: 3*size + 20, WhenFull: queue.RefuseNew})
	for range 3 {
		f.append(to("a")...)
	}
	for _, routes := range [][]event.Route{to("a"), to("b", "a")} {
		if err := f.q.Append(f.Context(), f.event(), routes); !errors.Is(err, queue.ErrFull) || !strings.Contains(err.Error(), `"a"`) {
			f.Fatalf("%v, want ErrFull that names the sink", err)
		}
	}
	f.append(to("b")...) // others are not refused
	if st := f.q.Stats().Sinks; st["b"].Pending != 1 || st["a"].Pending != 3 || st["a"].MaxBacklog != 3*size+20 || st["a"].Bytes > 3*size+20 {
		f.Fatalf("stats: %+v", st)
	}
	f.settle(delivered(f.take("a", 1, wide())[0]))
	f.append(to("a")...) // there is room again
	f.settle(dead(f.take("a", 1, wide())[0]))
	f.append(to("a")...) // dead letters are not a part of the backlog
	f.settle(delivered(f.take("a", 1, wide())[0]))
	// Two deliveries of one event that have no room together.
	if err := f.q.Append(f.Context(), f.event(), to("a", "a")); !errors.Is(err, queue.ErrFull) {
		f.Fatalf("two deliveries with room for one: %v, want ErrFull", err)
	}
	f.append(event.Route{Pipeline: "p", Sink: "a", Dead: &event.Death{Reason: event.ReasonRoute}}, to("a")[0])
	f.wantStats("a", queue.SinkStats{Pending: 3, Dead: 2, MaxBacklog: 3*size + 20})
	f.wantTold(map[string]int{"a route": 1})
}

func testBuryNew(_ *testing.T, f *fixture) {
	size := f.size()
	f.limit("a", queue.Limits{MaxBacklog: 2*size + 50, WhenFull: queue.BuryNew})
	f.append(to("a")...)
	f.append(to("a")...)
	third := f.append(to("a", "b")...)
	f.append(to("a")...)
	for range 2 {
		f.wantStats("a", queue.SinkStats{Pending: f.stats("a").Pending, Delayed: f.stats("a").Delayed, Dead: 2, MaxBacklog: f.stats("a").MaxBacklog})
		ls := f.letters(queue.Filter{Reason: event.ReasonOverflow})
		if len(ls) != 2 || ls[0].EventID != third.ID || ls[0].Attempts != 0 || ls[0].Error == "" {
			f.Fatalf("dead letters: %+v", ls)
		}
		f.reopen()
	}
	f.wantTold(map[string]int{"a overflow": 2})
	f.is(f.take("b", 1, wide()), third)
	// They can be redriven when there is room, as far as there is.
	f.limit("a", queue.Limits{MaxBacklog: 2*size + 50})
	keys := keysOf(f.letters(queue.Filter{Sink: "a"}))
	if n, err := f.q.Redrive(f.Context(), keys); n != 0 || err != nil {
		f.Fatalf("redrive without room: %d, %v", n, err)
	}
	f.settle(delivered(f.take("a", 1, wide())[0]))
	if n, err := f.q.Redrive(f.Context(), keys); n != 1 || err != nil {
		f.Fatalf("redrive with room for one: %d, %v", n, err)
	}
	if ls := f.letters(queue.Filter{Sink: "a"}); len(ls) != 1 || ls[0].Key != keys[1] {
		f.Fatalf("left: %+v", ls)
	}
}

func testDropOldest(_ *testing.T, f *fixture) {
	size := f.size()
	limits := queue.Limits{MaxBacklog: 6*size + 20, WhenFull: queue.DropOldest}
	f.limit("a", limits)
	evs := []*event.Event{f.append(to("a", "b")...)}
	for range 4 {
		evs = append(evs, f.append(to("a")...))
	}
	f.take("a", 2, wide())          // 0 and 1
	later := f.take("a", 1, wide()) // 2 is tried again
	f.settle(retry(later[0], time.Now().Add(-time.Hour)))
	// What is kept with a retry takes some bytes too.
	for st := f.q.Stats().Sinks["a"]; st.Bytes+size <= limits.MaxBacklog; st = f.q.Stats().Sinks["a"] {
		evs = append(evs, f.append(to("a")...))
	}
	evs = append(evs, f.append(to("a")...)) // drops 3, which was never tried
	f.wantTold(map[string]int{"a dropped": 1})
	evs = append(evs, f.append(to("a")...)) // drops 4
	f.wantTold(map[string]int{"a dropped": 2})
	if st := f.q.Stats().Sinks["a"]; st.Bytes > limits.MaxBacklog || st.InFlight != 2 || st.Dead != 0 || st.Delivered != 0 {
		f.Fatalf("stats: %+v", st)
	}
	f.reopen()
	f.limit("a", limits)
	want := map[ulid.ULID]bool{evs[0].ID: true, evs[1].ID: true, evs[2].ID: true}
	for _, ev := range evs[5:] {
		want[ev.ID] = true
	}
	got := f.take("a", len(want), wide())
	for _, l := range got {
		if !want[l.Event.ID] {
			f.Fatalf("event %s was not dropped", l.Event.ID)
		}
	}
	f.none("a")
	f.is(f.take("b", 1, wide()), evs[0])
	// All are handed out: the new one is dropped, and none of them.
	f.append(to("a")...)
	f.wantTold(map[string]int{"a dropped": 3})
	f.none("a")
	if st := f.stats("a"); st.InFlight != int64(len(got)) {
		f.Fatalf("stats: %+v", st)
	}
	for _, l := range got {
		f.settle(delivered(l))
	}
	if st := f.q.Stats().Sinks["a"]; st.Bytes != 0 || st.Pending != 0 {
		f.Fatalf("stats: %+v", st)
	}
}

// Those never tried go first, also where they wait for others of their order key;
// then those to be tried again.
func testDropOldestOrder(_ *testing.T, f *fixture) {
	size := f.size() + 30 // order keys and retries take some bytes
	var evs []*event.Event
	for _, k := range []string{"A", "A", "B", "B", "A", ""} {
		rt := to("a")[0]
		if k != "" {
			rt = ordered("a", k)
		}
		evs = append(evs, f.append(rt))
	}
	for _, l := range f.take("a", 3, wide()) { // both heads, and the one without order
		if l.Event.ID != evs[5].ID {
			f.settle(retry(l, time.Now().Add(time.Hour)))
		} else {
			f.settle(retry(l, time.Now().Add(2*time.Hour)))
		}
	}
	f.none("a")
	f.limit("a", queue.Limits{MaxBacklog: f.q.Stats().Sinks["a"].Bytes, WhenFull: queue.DropOldest})
	// Each takes the place of one: three that wait, then itself the oldest of those
	// never tried.
	for i := range 4 {
		f.append(to("a")...)
		f.wantTold(map[string]int{"a dropped": i + 1})
	}
	f.wantStats("a", queue.SinkStats{Pending: 3, Delayed: 3, MaxBacklog: f.stats("a").MaxBacklog})
	f.limit("a", queue.Limits{MaxBacklog: size, WhenFull: queue.DropOldest})
	for range 8 {
		f.append(to("a")...)
	}
	if st := f.q.Stats().Sinks["a"]; st.Bytes > size || st.Pending+st.Delayed != 1 {
		f.Fatalf("stats: %+v, want one in %d bytes", st, size)
	}
}

func testTooLargeForTheBacklog(_ *testing.T, f *fixture) {
	size := f.size()
	f.limit("a", queue.Limits{MaxBacklog: 3*size + 20, WhenFull: queue.DropOldest})
	kept := f.append(to("a")...)
	large := f.event()
	large.Body = make([]byte, 5*size)
	if err := f.q.Append(f.Context(), large, to("a", "b")); err != nil {
		f.Fatal(err)
	}
	f.wantTold(map[string]int{"a dropped": 1})
	f.is(f.take("a", 1, wide()), kept) // it did not take the others with it
	f.none("a")
	f.is(f.take("b", 1, wide()), large)
}

func testDeadMaxBytes(_ *testing.T, f *fixture) {
	f.bury("a", "p", "t", event.ReasonRoute)
	size := f.q.Stats().Sinks["a"].DeadBytes
	f.limit("a", queue.Limits{DeadMaxBytes: 3*size + 20})
	var evs []*event.Event
	for range 10 {
		evs = append(evs, f.bury("a", "p", "t", event.ReasonRoute))
	}
	f.bury("b", "p", "t", event.ReasonRoute)
	// It may need another commit to remove what the last one added too much.
	f.append(to("a")...)
	for range 2 {
		ls := f.letters(queue.Filter{Sink: "a"})
		if len(ls) != 3 || ls[0].EventID != evs[7].ID || ls[2].EventID != evs[9].ID {
			f.Fatalf("%d dead letters are left: %+v", len(ls), ls)
		}
		if st := f.q.Stats().Sinks; st["a"].Dead != 3 || st["a"].DeadBytes > 3*size+20 || st["b"].Dead != 1 {
			f.Fatalf("stats: %+v", st)
		}
		f.wantTold(map[string]int{"a route": 11, "b route": 1, "a discarded, aged: false": 8})
		f.reopen()
	}
	if _, err := f.q.DeadLetter(f.Context(), event.DeliveryID(evs[0].ID, "p", "a")); !errors.Is(err, queue.ErrUnknown) {
		f.Fatalf("what was discarded: %v", err)
	}
}

// Limits change while the queue works; a sink leaves the configuration with what is
// kept for it, and comes back.
func testConfigure(_ *testing.T, f *fixture) {
	size := f.size()
	tight := queue.Limits{MaxBacklog: size + 20, WhenFull: queue.RefuseNew}
	f.q.Configure(map[string]queue.Limits{"a": tight, "b": {}})
	f.append(to("a")...)
	refused := func() {
		f.Helper()
		if err := f.q.Append(f.Context(), f.event(), to("a")); !errors.Is(err, queue.ErrFull) {
			f.Fatalf("%v, want ErrFull", err)
		}
	}
	refused()
	f.q.Configure(map[string]queue.Limits{"b": {}})
	if st := f.q.Stats().Sinks["a"]; st.Configured || st.MaxBacklog != 0 || st.Pending != 1 {
		f.Fatalf("a sink that left: %+v", st)
	}
	f.append(to("a")...) // nothing bounds it
	f.q.Configure(map[string]queue.Limits{"a": tight, "b": {}, "new": {}})
	if st := f.q.Stats().Sinks; !st["a"].Configured || st["a"].MaxBacklog != tight.MaxBacklog || !st["new"].Configured {
		f.Fatalf("stats: %+v", st)
	}
	refused()
	if st := f.stats("a"); st.Pending != 2 {
		f.Fatalf("what was kept is not removed: %+v", st)
	}
	f.q.Configure(map[string]queue.Limits{"a": {MaxBacklog: 3*size + 20}})
	f.append(to("a")...)
	f.append(to("a")...)
	if ls := f.letters(queue.Filter{Reason: event.ReasonOverflow}); len(ls) != 1 {
		f.Fatalf("%d are dead, want 1", len(ls))
	}
	f.q.Configure(nil)
	f.settle(delivered(f.take("a", 1, wide())[0]))
	// While it works.
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			now := map[string]queue.Limits{"b": {}}
			if i%2 == 0 {
				now["a"] = queue.Limits{MaxBacklog: 1, WhenFull: queue.WhenFull(i / 2 % 3)}
			}
			f.q.Configure(now)
		}
	})
	for range 50 {
		if err := f.q.Append(f.Context(), f.event(), to("a")); err != nil && !errors.Is(err, queue.ErrFull) {
			f.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

func testOnce(_ *testing.T, f *fixture) {
	once := func(ev *event.Event, key string, routes ...event.Route) ulid.ULID {
		f.Helper()
		id, err := f.q.AppendOnce(f.Context(), ev, routes, event.Once{Key: key, Window: time.Hour})
		if err != nil {
			f.Fatal(err)
		}
		return id
	}
	first, silent := f.event(), f.event()
	if id := once(first, "k", to("a")...); id != first.ID {
		f.Fatalf("the first is %s, not itself", id)
	}
	if id := once(silent, "without routes"); id != silent.ID {
		f.Fatalf("the first is %s, not itself", id)
	}
	long := strings.Repeat("long", 10_000)
	other, longs := f.event(), f.event()
	once(other, "k2", to("a")...)
	once(longs, long, to("a")...)
	foreign := f.event()
	foreign.Source = "another"
	if id := once(foreign, "k", to("a")...); id != foreign.ID {
		f.Fatalf("the key of another source: %s", id)
	}
	l := f.take("a", 1, wide())
	f.is(l, first)
	f.settle(delivered(l[0])) // the key is remembered all the same
	for range 2 {
		for key, want := range map[string]ulid.ULID{"k": first.ID, "k2": other.ID, "without routes": silent.ID, long: longs.ID} {
			if id := once(f.event(), key, to("a", "b")...); id != want {
				f.Fatalf("key %.20s: %s, want %s", key, id, want)
			}
		}
		if st := f.q.Stats().Sinks; st["a"].Pending+st["a"].InFlight+st["a"].Delayed != 3 || st["b"].Pending != 0 {
			f.Fatalf("stats: %+v", st)
		}
		f.reopen()
	}
	f.is(f.take("a", 3, wide()), other, longs, foreign)

	// What was refused is not remembered.
	f.limit("a", queue.Limits{MaxBacklog: 1, WhenFull: queue.RefuseNew})
	if _, err := f.q.AppendOnce(f.Context(), f.event(), to("a"), event.Once{Key: "refused", Window: time.Hour}); !errors.Is(err, queue.ErrFull) {
		f.Fatalf("%v, want ErrFull", err)
	}
	// One that is known is answered, also where there is no room.
	if id := once(f.event(), "k", to("a")...); id != first.ID {
		f.Fatalf("known, without room: %s", id)
	}
	f.q.Configure(nil)
	again := f.event()
	if id := once(again, "refused", to("a")...); id != again.ID {
		f.Fatalf("what was refused: %s", id)
	}
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if _, err := f.q.AppendOnce(ctx, f.event(), to("a"), event.Once{Key: "x", Window: time.Hour}); !errors.Is(err, context.Canceled) {
		f.Fatal(err)
	}
}

func testOnceWindow(_ *testing.T, f *fixture) {
	once := event.Once{Key: "k", Window: 50 * time.Millisecond}
	var firsts []ulid.ULID
	for i := range 2 {
		ev := f.event()
		id, err := f.q.AppendOnce(f.Context(), ev, to("a"), once)
		if err != nil || id != ev.ID {
			f.Fatalf("round %d: %s, %v, want it to be the first", i, id, err)
		}
		firsts = append(firsts, id)
		time.Sleep(once.Window + 10*time.Millisecond)
	}
	for i, l := range f.take("a", 2, wide()) {
		if l.Event.ID != firsts[i] {
			f.Fatalf("event %d is %s, want %s", i, l.Event.ID, firsts[i])
		}
	}
}

func testOnceAtOnce(_ *testing.T, f *fixture) {
	const callers, keys = 16, 5
	evs := make([]*event.Event, callers*keys)
	for i := range evs {
		evs[i] = f.event()
	}
	ids := make([]ulid.ULID, len(evs))
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for k := range keys {
				i := c*keys + k
				var err error
				if ids[i], err = f.q.AppendOnce(f.Context(), evs[i], to("a"), event.Once{Key: fmt.Sprint(k), Window: time.Hour}); err != nil {
					f.Error(err)
				}
			}
		})
	}
	wg.Wait()
	kept := make(map[ulid.ULID]bool)
	for _, l := range f.take("a", keys, wide()) {
		kept[l.Event.ID] = true
	}
	f.none("a")
	for i, id := range ids {
		if id != ids[i%keys] || !kept[id] {
			f.Fatalf("caller %d was told %s, another one %s, kept %v", i/keys, id, ids[i%keys], kept[id])
		}
	}
}

func testNotes(_ *testing.T, f *fixture) {
	want := func(notes map[string]string) {
		f.Helper()
		got, err := f.q.Notes(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		texts := make(map[string]string)
		for name, note := range got {
			texts[name] = string(note)
		}
		if fmt.Sprint(texts) != fmt.Sprint(notes) {
			f.Fatalf("notes: %v, want %v", texts, notes)
		}
	}
	keep := func(name string, note []byte) {
		f.Helper()
		if err := f.q.Keep(f.Context(), name, note); err != nil {
			f.Fatal(err)
		}
	}
	want(nil)
	keep("one", []byte("1"))
	keep("two", []byte("2\x00\xff"))
	keep("empty", []byte{})
	keep("two", []byte("3"))
	keep("never there", nil)
	for range 2 {
		want(map[string]string{"one": "1", "two": "3", "empty": ""})
		f.reopen()
	}
	keep("one", nil)
	f.reopen()
	want(map[string]string{"two": "3", "empty": ""})
	if err := f.q.Keep(f.Context(), "", []byte("x")); err == nil {
		f.Error("a note without a name")
	}
	if err := f.q.Keep(f.Context(), "large", make([]byte, 1<<20)); err == nil {
		f.Error("a note of a mebibyte")
	}
	if err := f.q.Close(); err != nil {
		f.Fatal(err)
	}
	_, notes := f.q.Notes(f.Context())
	_, letter := f.q.DeadLetter(f.Context(), "x")
	_, redrive := f.q.Redrive(f.Context(), []queue.DeadKey{{Sink: "a"}})
	_, discard := f.q.Discard(f.Context(), []queue.DeadKey{{Sink: "a"}})
	_, once := f.q.AppendOnce(f.Context(), f.event(), to("a"), event.Once{Key: "k", Window: time.Hour})
	for what, err := range map[string]error{
		"keep": f.q.Keep(f.Context(), "x", nil), "notes": notes, "dead letter": letter, "redrive": redrive, "discard": discard, "append once": once,
	} {
		if !errors.Is(err, queue.ErrClosed) {
			f.Errorf("%s after close: %v, want ErrClosed", what, err)
		}
	}
}
