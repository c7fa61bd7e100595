package queue

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// What is too old is removed without anybody asking for it, and so is what is above
// a limit that was lowered.
func TestSweep(t *testing.T) {
	w := &sweepWatcher{}
	limits := map[string]Limits{"old": {DeadMaxAge: time.Hour}, "many": {}}
	bubble(t, Options{Sinks: limits, Watcher: w}, func(t *testing.T, q *Embedded) {
		n := uint64(0)
		bury := func(sink string, many int) {
			t.Helper()
			n++
			route := event.Route{Pipeline: "p", Sink: sink, Dead: &event.Death{Reason: event.ReasonRoute}}
			if err := q.Append(t.Context(), benchEvent(n), slices.Repeat([]event.Route{route}, many)); err != nil {
				t.Fatal(err)
			}
		}
		dead := func(old, many int64) {
			t.Helper()
			synctest.Wait()
			readAll(t, q)
			st := q.Stats().Sinks
			if st["old"].Dead != old || st["many"].Dead != many {
				t.Fatalf("%d and %d are dead, want %d and %d", st["old"].Dead, st["many"].Dead, old, many)
			}
		}
		for range 300 {
			bury("old", 10) // more than one sweep removes
		}
		for range 10 {
			bury("many", 1)
		}
		time.Sleep(40 * time.Minute)
		bury("old", 1)
		dead(3001, 10)
		time.Sleep(20*time.Minute + sweepEvery + time.Second)
		dead(1, 10)
		each := q.Stats().Sinks["many"].DeadBytes / 10
		limits["many"] = Limits{DeadMaxBytes: 4 * each}
		q.Configure(limits)
		time.Sleep(sweepEvery + time.Second)
		dead(1, 4)
		delete(limits, "old") // what is not configured is kept
		q.Configure(limits)
		time.Sleep(2 * time.Hour)
		dead(1, 4)
		if fmt.Sprint(w.told) != "map[many false:6 old true:3000]" {
			t.Errorf("the watcher was told %v", w.told)
		}
	})
}

// sweepWatcher counts what is discarded. The committer alone calls it.
type sweepWatcher struct {
	blindWatcher
	told map[string]int
}

// Discarded implements Watcher.
func (w *sweepWatcher) Discarded(sink string, aged bool, n int) {
	if w.told == nil {
		w.told = make(map[string]int)
	}
	w.told[fmt.Sprint(sink, " ", aged)] += n
}

// A key is forgotten after its window, and takes no room then.
func TestKeysAreForgotten(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		once := func(n uint64, key string, window time.Duration) bool {
			t.Helper()
			ev := benchEvent(n)
			first, err := q.AppendOnce(t.Context(), ev, nil, event.Once{Key: key, Window: window})
			if err != nil {
				t.Fatal(err)
			}
			readAll(t, q)
			return first == ev.ID
		}
		start := time.Now()
		for i := range uint64(20) {
			once(i+1, fmt.Sprint("k", i), time.Duration(i)*time.Minute+time.Second)
		}
		one := q.Stats().Bytes / 20
		// Known for as long as its window, to the moment; then anew, before it is swept.
		time.Sleep(time.Second - 1)
		if once(30, "k0", 10*time.Second) {
			t.Error("it is forgotten too soon")
		}
		time.Sleep(time.Nanosecond)
		if !once(31, "k0", 10*time.Second) || once(32, "k0", 10*time.Second) {
			t.Error("it is remembered for too long, or not anew")
		}
		if st := q.Stats(); st.Bytes != 20*one {
			t.Errorf("%d bytes, want %d", st.Bytes, 20*one)
		}
		time.Sleep(5*time.Minute + sweepEvery)
		synctest.Wait()
		readAll(t, q)
		if st := q.Stats(); st.Bytes != 14*one {
			t.Errorf("%d bytes after %s, want %d", st.Bytes, time.Since(start), 14*one)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if st := q.Stats(); st.Bytes != 0 || q.keysIn(spaceOnce) != 0 || q.keysIn(spaceOnceTime) != 0 {
			t.Errorf("%d bytes, %d keys are left", st.Bytes, q.keysIn(spaceOnce))
		}
	})
}
