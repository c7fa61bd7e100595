package queue

import (
	"testing"
	"testing/synctest"
	"time"
)

// What a burst has taken is given back when it is over, although nothing else is written:
// that events are settled takes little, whatever their size.
func TestSpaceComesBackInSilence(t *testing.T) {
	bubble(t, Options{ReserveBytes: 16 << 20}, func(t *testing.T, q *Embedded) {
		const many = 400
		for n := range uint64(many) {
			ev := benchEvent(n + 1)
			ev.Body = make([]byte, 128<<10)
			if err := q.Append(t.Context(), ev, toAudit); err != nil {
				t.Fatal(err)
			}
		}
		used := func() int64 {
			synctest.Wait()
			return (&reclaimer{q: q}).usage().tables
		}
		full, before := used(), q.store.Metrics()
		if full < many*96<<10 {
			t.Fatalf("the tables have %d bytes", full)
		}
		time.Sleep(3*lookEvery + lookEvery/2) // between two looks
		synctest.Wait()
		if m := q.store.Metrics(); m.Flush.Count != before.Flush.Count || m.Compact.Count != before.Compact.Count {
			t.Error("what is kept was written again")
		}
		drain(t, q, "audit", 1, many)
		if got := used(); got < leastGarbage {
			t.Fatalf("it came back by itself: %d bytes are left", got)
		}
		time.Sleep(3 * lookEvery)
		if got := used(); got > 1<<20 {
			t.Errorf("%d bytes are left, of %d", got, full)
		}
	})
}

// Reclaiming in silence is for what is worth it, and does not go round in circles.
func TestReclaimingIsWorthIt(t *testing.T) {
	const most = 100
	for _, tt := range []struct {
		name    string
		quiet   quiet
		written uint64
		tables  int64
		garbage int64
		want    bool
	}{
		{"silence", quiet{written: 1000}, 1000, 2 * leastGarbage, leastGarbage, true},
		{"little is written", quiet{written: 1000}, 1099, 2 * leastGarbage, leastGarbage, true},
		{"more is written", quiet{written: 1000}, 1100, 2 * leastGarbage, leastGarbage, false},
		{"little garbage", quiet{written: 1000}, 1000, leastGarbage, leastGarbage - 1, false},
		{"much that is kept", quiet{written: 1000}, 1000, 100 * leastGarbage, 49 * leastGarbage, false},
		{"all of it was left before", quiet{written: 1000, left: leastGarbage}, 1000, leastGarbage, leastGarbage, false},
		{"as much again since", quiet{written: 1000, left: leastGarbage}, 1000, 2 * leastGarbage, 2 * leastGarbage, true},
		{"events that are not in tables yet", quiet{written: 1000}, 1000, 0, -5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.quiet.worth(usage{tt.written, tt.tables, tt.garbage}, most); got != tt.want {
				t.Errorf("worth it: %v", got)
			}
		})
	}
	silence := func(l *quiet, tables, garbage int64) bool {
		return l.worth(usage{tables: tables, garbage: garbage}, most)
	}
	l := quiet{}
	if l.worth(usage{tables: leastGarbage, garbage: -leastGarbage}, most) || silence(&l, leastGarbage, 0) {
		t.Error("what was not in tables at the last look counts as garbage")
	}
	l.tryLater()
	l.tryLater()
	looks := 1
	for ; !silence(&l, leastGarbage, leastGarbage); looks++ {
	}
	if looks != 3 {
		t.Errorf("it is tried again at look %d after it failed twice, want 3", looks)
	}
	for range 100 {
		l.tryLater()
	}
	if l.rests != mostRests {
		t.Errorf("it rests for %d looks", l.rests)
	}
	l.done(leastGarbage)
	l.rests = 0
	if l.failed != 0 || silence(&l, leastGarbage, leastGarbage) {
		t.Error("what was left is tried again")
	}
	l = quiet{left: 5 * leastGarbage}
	silence(&l, leastGarbage, leastGarbage/2) // the store gave it back by itself
	if !silence(&l, 2*leastGarbage, 2*leastGarbage) {
		t.Error("what was left long ago still counts")
	}
}
