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
		used := func() int64 { return (&reclaimer{q: q}).usage().tables }
		full := used()
		if full < many*96<<10 {
			t.Fatalf("the tables have %d bytes", full)
		}
		time.Sleep(3 * lookEvery)
		if got := used(); got < full {
			t.Errorf("of what is kept, %d bytes are left, of %d", got, full)
		}
		drain(t, q, "audit", 1, many)
		synctest.Wait()
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
		{"all of it was left before", quiet{1000, leastGarbage}, 1000, leastGarbage, leastGarbage, false},
		{"as much again since", quiet{1000, leastGarbage}, 1000, 2 * leastGarbage, 2 * leastGarbage, true},
		{"events that are not in tables yet", quiet{written: 1000}, 1000, 0, -5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.quiet.worth(usage{tt.written, tt.tables, tt.garbage}, most); got != tt.want {
				t.Errorf("worth it: %v", got)
			}
		})
	}
	l := quiet{left: 5 * leastGarbage}
	l.worth(usage{tables: leastGarbage, garbage: leastGarbage / 2}, most) // the store gave it back by itself
	if !l.worth(usage{tables: 2 * leastGarbage, garbage: 2 * leastGarbage}, most) {
		t.Error("what was left long ago still counts")
	}
}
