package queuetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/callbackd/callbackd/core/queue"
)

// bury makes a dead letter of an event with a type and a pipeline.
func (f *fixture) bury(sink, pipeline, kind string, reason event.Reason) *event.Event {
	f.Helper()
	ev := f.event()
	ev.Type = kind
	rt := event.Route{Pipeline: pipeline, Sink: sink, Dead: &event.Death{Reason: reason, Error: "e"}}
	if err := f.q.Append(f.Context(), ev, []event.Route{rt}); err != nil {
		f.Fatal(err)
	}
	return ev
}

func (f *fixture) letters(filter queue.Filter) (out []queue.DeadLetter) {
	f.Helper()
	err := f.q.DeadLetters(f.Context(), filter, func(d queue.DeadLetter) bool { out = append(out, d); return true })
	if err != nil {
		f.Fatal(err)
	}
	return out
}

func keysOf(letters []queue.DeadLetter) (keys []queue.DeadKey) {
	for _, l := range letters {
		keys = append(keys, l.Key)
	}
	return keys
}

func testFilters(_ *testing.T, f *fixture) {
	var evs []*event.Event
	for i := range 12 {
		evs = append(evs, f.bury(
			[]string{"a", "b"}[i%2], []string{"p", "q", "r"}[i%3], []string{"t", "u"}[i/6],
			[]event.Reason{event.ReasonRoute, event.ReasonRender}[i/3%2],
		))
	}
	all := f.letters(queue.Filter{})
	if len(all) != 12 {
		f.Fatalf("%d dead letters", len(all))
	}
	for i, l := range all {
		if l.EventID != evs[i].ID {
			f.Fatalf("dead letter %d is of %s, want %s: oldest first", i, l.EventID, evs[i].ID)
		}
	}
	check := func(what string, filter queue.Filter, want func(i int) bool) {
		f.Helper()
		var wanted, got []string
		for i, l := range all {
			if want(i) {
				wanted = append(wanted, l.ID)
			}
		}
		for _, l := range f.letters(filter) {
			got = append(got, l.ID)
		}
		if fmt.Sprint(got) != fmt.Sprint(wanted) {
			f.Errorf("%s: got %v, want %v", what, got, wanted)
		}
	}
	f.reopen()
	check("sink", queue.Filter{Sink: "b"}, func(i int) bool { return i%2 == 1 })
	check("another sink", queue.Filter{Sink: "c"}, func(int) bool { return false })
	check("pipeline", queue.Filter{Pipeline: "q"}, func(i int) bool { return i%3 == 1 })
	check("reason", queue.Filter{Reason: event.ReasonRender}, func(i int) bool { return i/3%2 == 1 })
	check("type", queue.Filter{Type: "u"}, func(i int) bool { return i >= 6 })
	check("all of them", queue.Filter{Sink: "a", Pipeline: "p", Type: "t", Reason: event.ReasonRoute}, func(i int) bool { return i == 0 })
	check("from", queue.Filter{From: all[4].Died}, func(i int) bool { return !all[i].Died.Before(all[4].Died) })
	check("until", queue.Filter{Until: all[4].Died}, func(i int) bool { return all[i].Died.Before(all[4].Died) })
	check("from and until", queue.Filter{From: all[2].Died, Until: all[9].Died}, func(i int) bool {
		return !all[i].Died.Before(all[2].Died) && all[i].Died.Before(all[9].Died)
	})
	check("nothing between", queue.Filter{From: all[9].Died, Until: all[2].Died}, func(int) bool { return false })
	for n := range all {
		check("after", queue.Filter{After: all[n].Key}, func(i int) bool { return i > n })
		check("after, of a sink", queue.Filter{After: all[n].Key, Sink: "a"}, func(i int) bool { return i > n && i%2 == 0 })
	}
	// After goes on where the letter is gone by now.
	if n, err := f.q.Discard(f.Context(), keysOf(all[5:6])); err != nil || n != 1 {
		f.Fatal(n, err)
	}
	check("after one that is gone", queue.Filter{After: all[5].Key}, func(i int) bool { return i > 5 })
	check("after and from", queue.Filter{After: all[6].Key, From: all[3].Died}, func(i int) bool { return i > 6 })

	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if err := f.q.DeadLetters(ctx, queue.Filter{}, func(queue.DeadLetter) bool { return true }); !errors.Is(err, context.Canceled) {
		f.Errorf("with a context that has ended: %v", err)
	}
}

// Many dead letters are read in parts; what f does meanwhile does not matter.
func testManyLetters(_ *testing.T, f *fixture) {
	const n = 400
	var rs []event.Route
	for i := range n {
		rs = append(rs, event.Route{Pipeline: fmt.Sprint("p", i), Sink: []string{"a", "b"}[i%2], Dead: &event.Death{Reason: event.ReasonRoute}})
	}
	f.append(rs...)
	seen := make(map[string]bool)
	err := f.q.DeadLetters(f.Context(), queue.Filter{}, func(l queue.DeadLetter) bool {
		seen[l.ID] = true
		if len(seen)%50 == 0 {
			if _, err := f.q.Discard(f.Context(), []queue.DeadKey{l.Key}); err != nil {
				f.Error(err)
			}
		}
		return true
	})
	if err != nil || len(seen) != n {
		f.Fatalf("%d, %v", len(seen), err)
	}
	if st := f.q.Stats().Sinks; st["a"].Dead+st["b"].Dead != n-n/50 {
		f.Fatalf("%d are left", st["a"].Dead+st["b"].Dead)
	}
}

func testLetterByID(_ *testing.T, f *fixture) {
	ev := f.append(
		event.Route{Pipeline: "p", Sink: "a", Dead: &event.Death{Reason: event.ReasonRoute, Error: "one"}},
		event.Route{Pipeline: "q", Sink: "a", Dead: &event.Death{Reason: event.ReasonRender, Error: "two"}},
		event.Route{Pipeline: "p", Sink: "b"},
	)
	for range 2 {
		for _, l := range f.letters(queue.Filter{}) {
			got, err := f.q.DeadLetter(f.Context(), l.ID)
			if err != nil || fmt.Sprint(got.Key, got.ID, got.Error, got.Pipeline, got.EventID, got.Died, string(got.Event.Body)) !=
				fmt.Sprint(l.Key, l.ID, l.Error, l.Pipeline, ev.ID, l.Died, string(ev.Body)) {
				f.Fatalf("got %+v, %v, want %+v", got, err, l)
			}
		}
		f.reopen()
	}
	pending := event.DeliveryID(ev.ID, "p", "b")
	known := event.DeliveryID(ev.ID, "p", "a")
	for _, id := range []string{
		"", "x", ev.ID.String(), pending, known + "0", known[:len(known)-1], "\x00" + known[1:],
		strings.Repeat("é", 40), event.DeliveryID(f.event().ID, "p", "a"), strings.Repeat("Z", 39), known[:26] + "-" + known[27:],
	} {
		if l, err := f.q.DeadLetter(f.Context(), id); !errors.Is(err, queue.ErrUnknown) {
			f.Errorf("%q: %+v, %v, want ErrUnknown", id, l.Key, err)
		}
	}
	// It dies, is redriven, dies again: the id stays.
	for i := range 2 {
		f.settle(dead(f.take("b", 1, wide())[0]))
		l, err := f.q.DeadLetter(f.Context(), pending)
		if err != nil {
			f.Fatalf("round %d: %v", i, err)
		}
		if n, err := f.q.Redrive(f.Context(), []queue.DeadKey{l.Key}); n != 1 || err != nil {
			f.Fatalf("round %d: %d, %v", i, n, err)
		}
		if _, err := f.q.DeadLetter(f.Context(), pending); !errors.Is(err, queue.ErrUnknown) {
			f.Errorf("what was redriven: %v", err)
		}
	}
}

func testRedrive(_ *testing.T, f *fixture) {
	ev := f.append(to("a", "b")...)
	l := f.take("a", 1, wide())[0]
	f.settle(retry(l, time.Now()))
	f.settle(dead(f.take("a", 1, wide())[0]))
	f.bury("a", "p", "t", event.ReasonRoute)
	letters := f.letters(queue.Filter{})
	keys := keysOf(letters)
	gone := keys[0]
	gone.Seq += 1000
	wrongTime := keys[0]
	wrongTime.Died--
	for what, k := range map[string]queue.DeadKey{"another": gone, "another time": wrongTime, "another sink": {Sink: "b", Died: gone.Died}, "no sink": {Sink: "none"}, "zero": {}} {
		for do, fn := range map[string]func(context.Context, []queue.DeadKey) (int, error){"redrive": f.q.Redrive, "discard": f.q.Discard} {
			if n, err := fn(f.Context(), []queue.DeadKey{k}); n != 0 || err != nil {
				f.Errorf("%s %s: %d, %v", do, what, n, err)
			}
		}
	}
	if n, err := f.q.Redrive(f.Context(), nil); n != 0 || err != nil {
		f.Errorf("redrive nothing: %d, %v", n, err)
	}
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	if n, err := f.q.Redrive(ctx, keys); n != 0 || !errors.Is(err, context.Canceled) {
		f.Errorf("redrive with a context that has ended: %d, %v", n, err)
	}
	before := time.Now()
	if n, err := f.q.Redrive(f.Context(), append(slices.Clone(keys), keys[0], gone, keys[1])); n != 2 || err != nil {
		f.Fatalf("redrive: %d, %v, want 2: each is found once", n, err)
	}
	if n, err := f.q.Redrive(f.Context(), keys); n != 0 || err != nil {
		f.Fatalf("redrive again: %d, %v", n, err)
	}
	if n, err := f.q.Discard(f.Context(), keys); n != 0 || err != nil {
		f.Fatalf("discard what was redriven: %d, %v", n, err)
	}
	for range 2 {
		if st := f.stats("a"); st.Dead != 0 || st.Pending+st.Delayed != 2 {
			f.Fatalf("stats: %+v", st)
		}
		for _, l := range f.take("a", 2, wide()) {
			if l.Attempts != 0 || l.Ordered || l.Since.Before(before.Add(-time.Second)) || l.Suspicion.Suspect() {
				f.Fatalf("redriven: %+v", l)
			}
			if l.Event.ID == ev.ID && string(l.Event.Body) != string(ev.Body) {
				f.Fatal("another body")
			}
		}
		f.none("a")
		f.reopen()
	}
}

func testDiscard(_ *testing.T, f *fixture) {
	ev := f.append(to("b")...)
	for range 5 {
		f.bury("a", "p", "t", event.ReasonRoute)
	}
	f.append(event.Route{Pipeline: "p", Sink: "a", Dead: &event.Death{Reason: event.ReasonRoute}}, to("b")[0])
	keys := keysOf(f.letters(queue.Filter{}))
	if n, err := f.q.Discard(f.Context(), []queue.DeadKey{keys[1], keys[2], keys[5]}); n != 3 || err != nil {
		f.Fatalf("discard: %d, %v", n, err)
	}
	if n, err := f.q.Discard(f.Context(), keys); n != 3 || err != nil {
		f.Fatalf("discard the others: %d, %v", n, err)
	}
	for range 2 {
		if st := f.q.Stats().Sinks["a"]; st.Dead != 0 || st.DeadBytes != 0 || len(f.letters(queue.Filter{})) != 0 {
			f.Fatalf("stats: %+v", st)
		}
		f.reopen()
	}
	ls := f.take("b", 2, wide()) // with the event that had a dead letter too
	if ls[0].Event.ID != ev.ID {
		f.Fatal("another event")
	}
	f.settle(delivered(ls[0]), delivered(ls[1]))
	if st := f.q.Stats(); st.Bytes != 0 {
		f.Fatalf("%d bytes are left", st.Bytes)
	}
}

// Those who redrive and discard the same at once find each once, while callbacks
// come in.
func testRedriveAtOnce(_ *testing.T, f *fixture) {
	const n = 60
	for range n {
		f.bury("a", "p", "t", event.ReasonRoute)
	}
	keys := keysOf(f.letters(queue.Filter{}))
	var redriven, discarded atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var mu sync.Mutex
	appended := 0
	var appender sync.WaitGroup
	appender.Go(func() {
		for i := byte(0); ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			ev := &event.Event{Source: "s", Accepted: time.Now(), Body: []byte("more")}
			ev.ID[0], ev.ID[15] = 2, i
			if err := f.q.Append(f.Context(), ev, to("a")); err != nil {
				f.Error(err)
				return
			}
			mu.Lock()
			appended++
			mu.Unlock()
		}
	})
	for i := range 4 {
		wg.Go(func() {
			do, sum := f.q.Redrive, &redriven
			if i%2 == 0 {
				do, sum = f.q.Discard, &discarded
			}
			for at := 0; at < n; at += 10 {
				found, err := do(f.Context(), keys[at:at+10])
				if err != nil {
					f.Error(err)
				}
				sum.Add(int64(found))
			}
		})
	}
	wg.Wait()
	close(stop)
	appender.Wait()
	if redriven.Load()+discarded.Load() != n {
		f.Fatalf("%d were redriven and %d discarded, of %d", redriven.Load(), discarded.Load(), n)
	}
	for range 2 {
		if st := f.stats("a"); st.Dead != 0 || st.Pending+st.Delayed != redriven.Load()+int64(appended) {
			f.Fatalf("stats: %+v, want %d redriven and %d new", st, redriven.Load(), appended)
		}
		f.reopen()
	}
	old := 0
	for _, l := range f.take("a", int(redriven.Load())+appended, wide()) {
		if string(l.Event.Body) != "more" {
			old++
		}
	}
	if old != int(redriven.Load()) {
		f.Fatalf("%d redriven ones came, want %d", old, redriven.Load())
	}
}
