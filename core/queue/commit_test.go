package queue

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/oklog/ulid/v2"
)

// keysIn counts what the store has in a space, synced or not.
func (q *Embedded) keysIn(space byte) int {
	it, err := q.store.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return 0
	}
	defer func() { _ = it.Close() }()
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		n++
	}
	return n
}

// What a commit adds to those to be tried again can be read as soon as it is in the
// store, which is before it is synced. A taker that does is not to take it up twice.
func TestReadWhileACommitIsSynced(t *testing.T) {
	due := time.Unix(1, 0)
	settle := func(t *testing.T, q *Embedded, l Leased, st Settlement) {
		t.Helper()
		st.Lease, st.Attempts = l.Lease, l.Attempts+1
		if err := q.Settle(t.Context(), []Settlement{st}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		// prepare leaves one delivery that change adds to those to be tried again.
		prepare func(t *testing.T, q *Embedded) (change func() error)
	}{
		"redriven": {func(t *testing.T, q *Embedded) func() error {
			if err := q.Append(t.Context(), benchEvent(100), toAudit); err != nil {
				t.Fatal(err)
			}
			settle(t, q, takeOne(t, q, "audit", time.Hour), Settlement{Dead: &event.Death{Reason: event.ReasonRejected}})
			var keys []DeadKey
			if err := q.DeadLetters(t.Context(), Filter{}, func(l DeadLetter) bool { keys = append(keys, l.Key); return true }); err != nil {
				t.Fatal(err)
			}
			return func() error { _, err := q.Redrive(t.Context(), keys); return err }
		}},
		"the next one of its order key": {func(t *testing.T, q *Embedded) func() error {
			ordered := []event.Route{{Pipeline: "p", Sink: "audit", Order: 1}}
			for i := range uint64(8) {
				if err := q.Append(t.Context(), benchEvent(100+i), ordered); err != nil {
					t.Fatal(err)
				}
			}
			s := q.sink("audit")
			head := takeOne(t, q, "audit", time.Hour)
			for q.keysIn(spaceParked) == 0 {
				if ds, err := q.takeNow(s, Want{MaxEvents: 1}); err != nil || len(ds) > 0 {
					t.Fatal(ds, err)
				}
			}
			return func() error {
				st := Settlement{Lease: head.Lease, Attempts: 1, Dead: &event.Death{Reason: event.ReasonRejected}}
				return q.Settle(t.Context(), []Settlement{st})
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &faults{kinds: map[errorfs.OpKind]bool{errorfs.OpFileSync: true, errorfs.OpFileSyncData: true}, part: ".log", hang: make(chan struct{})}
			q := openBench(t, Options{Dir: "/q", WindowEvents: 2, fs: errorfs.Wrap(vfs.NewMem(), f)})
			change := c.prepare(t, q)
			// Five that are due, of which three are left to the disk.
			for i := range uint64(5) {
				if err := q.Append(t.Context(), benchEvent(i+1), toAudit); err != nil {
					t.Fatal(err)
				}
			}
			for i := range 5 {
				settle(t, q, takeOne(t, q, "audit", time.Hour), Settlement{Retry: &Retry{At: due.Add(time.Duration(i)), Error: "x"}})
			}
			seen := make(map[ulid.ULID]int)
			for range 4 {
				seen[takeOne(t, q, "audit", time.Hour).Event.ID]++
			}
			dead := q.keysIn(spaceDead) // changes with both
			f.on.Store(true)
			changed := make(chan error, 1)
			go func() { changed <- change() }()
			for q.keysIn(spaceDead) == dead {
				runtime.Gosched()
			}
			seen[takeOne(t, q, "audit", time.Hour).Event.ID]++ // reads
			f.on.Store(false)
			close(f.hang)
			if err := <-changed; err != nil {
				t.Fatal(err)
			}
			for {
				ds, err := q.takeNow(q.sink("audit"), Want{MaxEvents: 10, MaxBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				if len(ds) == 0 {
					break
				}
				for _, d := range ds {
					seen[d.event.ID]++
				}
			}
			for id, n := range seen {
				if n != 1 {
					t.Errorf("event %s was handed out %d times", id, n)
				}
			}
			if len(seen) != 6 {
				t.Errorf("%d events were handed out, want 6", len(seen))
			}
		})
	}
}

// A group whose commit is done is let go of: it has bodies of callbacks.
func TestACommittedGroupIsLetGo(t *testing.T) {
	q := openBench(t, Options{})
	if err := q.Append(t.Context(), benchEvent(100), toAudit); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	l := q.groups
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.front != nil || len(l.line) > 0 {
		t.Errorf("a closed queue holds a group in front (%v) and %d in line, want none", l.front != nil, len(l.line))
	}
}

// No table has events or fresh deliveries beside anything else, or events of more than
// one span: that is what lets a compaction move tables instead of writing them again.
func TestEventsHaveTablesOfTheirOwn(t *testing.T) {
	q := openBench(t, Options{ReserveBytes: 16 << 20}) // with small tables
	const backlog, more = 3*eventsPerTable - 1000, 2000
	fill(t, q, backlog)
	// Settled at the front while more comes in at the back.
	var settled sync.WaitGroup
	settled.Go(func() { drain(t, q, "audit", 1, more) })
	fill(t, q, more)
	settled.Wait()
	if err := q.store.Flush(); err != nil {
		t.Fatal(err)
	}
	levels, err := q.store.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	spaces, spans := map[byte]int{}, map[uint64]int{}
	for _, level := range levels {
		for _, table := range level {
			first, last := table.Smallest.UserKey, table.Largest.UserKey
			spaces[first[0]]++
			for _, own := range []byte{spaceEvent, spaceFresh} {
				if first[0] != last[0] && first[0] <= own && own <= last[0] {
					t.Errorf("a table has keys from %x to %x", first, last)
				}
			}
			if first[0] == spaceEvent {
				from, to := binary.BigEndian.Uint64(first[1:]), binary.BigEndian.Uint64(last[1:])
				if spans[from/eventsPerTable]++; from/eventsPerTable != to/eventsPerTable {
					t.Errorf("a table has events from %d to %d", from, to)
				}
			}
		}
	}
	if spaces[spaceEvent] == 0 || spaces[spaceFresh] == 0 || len(spans) != 4 {
		t.Errorf("tables begin with keys of %v, and with events of the spans %v", spaces, spans)
	}
	if kept, compacted := q.bytes.Load(), int64(q.store.Metrics().Total().TableBytesCompacted); compacted > kept/4 {
		t.Errorf("compactions wrote %d bytes, where %d are kept", compacted, kept)
	}
}
