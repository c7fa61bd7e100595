package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// untilFull appends until an event is refused.
func untilFull(t *testing.T, q *Embedded) {
	t.Helper()
	for n := uint64(1); n < 1000; n++ {
		if err := q.Append(t.Context(), benchEvent(n), toAudit); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("nothing is refused")
}

func wantNoRoom(t *testing.T, q *Embedded, want ...NoRoom) {
	t.Helper()
	got := q.Stats().NoRoom
	if !slices.EqualFunc(got, want, func(a, b NoRoom) bool {
		return a.Cause == b.Cause && a.Sink == b.Sink && a.Since.Equal(b.Since) && a.Last.Equal(b.Last)
	}) {
		t.Errorf("no room: %+v\nwant %+v", got, want)
	}
}

// Why events are refused is told for as long as they are, also while nobody sends
// any, and not for much longer.
func TestNoRoomIsTold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options Options
		// full and empty are what it takes besides filling the queue.
		full, empty func(q *Embedded, mem *vfs.MemFS)
		want        NoRoom
	}{
		{name: "queue", options: Options{MaxBytes: 5000}, want: NoRoom{Cause: NoRoomQueue}},
		{
			name:    "backlog",
			options: Options{Sinks: map[string]Limits{"audit": {MaxBacklog: 5000, WhenFull: RefuseNew}}},
			want:    NoRoom{Cause: NoRoomBacklog, Sink: "audit"},
		},
		{
			name: "reserve", options: Options{ReserveBytes: 100},
			full: func(_ *Embedded, mem *vfs.MemFS) {
				mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 99, TotalBytes: 200})
			},
			empty: func(_ *Embedded, mem *vfs.MemFS) {
				mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 2 << 30})
			},
			want: NoRoom{Cause: NoRoomReserve},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mem := vfs.NewMem()
				mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 2 << 30})
				tt.options.Dir, tt.options.fs = "/q", mem
				q, err := Open(t.Context(), tt.options)
				if err != nil {
					t.Fatal(err)
				}
				if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
					t.Fatal(err)
				}
				wantNoRoom(t, q)
				if tt.full != nil {
					tt.full(q, mem)
				}
				time.Sleep(diskEvery)
				untilFull(t, q)
				want := tt.want
				want.Since, want.Last = time.Now(), time.Now()
				wantNoRoom(t, q, want)
				time.Sleep(12 * time.Second)
				untilFull(t, q)
				want.Last = time.Now()
				wantNoRoom(t, q, want)
				time.Sleep(time.Hour) // nobody sends anything
				wantNoRoom(t, q, want)

				// There is room: it is over, though nobody has tried yet.
				if tt.empty != nil {
					tt.empty(q, mem)
				}
				for range 2 {
					l := takeOne(t, q, "audit", time.Minute)
					if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
						t.Fatal(err)
					}
					if q.Stats().Sinks["audit"].Pending == 0 {
						break
					}
				}
				wantNoRoom(t, q)
				if err := q.Append(t.Context(), benchEvent(2000), toAudit); err != nil {
					t.Fatal(err)
				}
				if err := q.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// A queue at its limit that accepts one now and then goes on refusing.
func TestNoRoomGoesOn(t *testing.T) {
	bubble(t, Options{MaxBytes: 5000}, func(t *testing.T, q *Embedded) {
		untilFull(t, q)
		want := NoRoom{Cause: NoRoomQueue, Since: time.Now()}
		for range 10 {
			time.Sleep(time.Second)
			l := takeOne(t, q, "audit", time.Minute)
			if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
				t.Fatal(err)
			}
			untilFull(t, q) // one finds room, the next one does not
			want.Last = time.Now()
			wantNoRoom(t, q, want)
		}
		l := takeOne(t, q, "audit", time.Minute)
		if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(refusedFor - time.Nanosecond)
		wantNoRoom(t, q, want)
		time.Sleep(time.Nanosecond)
		wantNoRoom(t, q)
		// What is refused after that is another row.
		if err := q.Append(t.Context(), benchEvent(3000), toAudit); err != nil {
			t.Fatal(err)
		}
		untilFull(t, q)
		wantNoRoom(t, q, NoRoom{Cause: NoRoomQueue, Since: time.Now(), Last: time.Now()})
	})
}

// A sink whose backlog is not to refuse any more refuses nothing.
func TestNoRoomEndsByConfiguration(t *testing.T) {
	bubble(t, Options{Sinks: map[string]Limits{"audit": {MaxBacklog: 5000, WhenFull: RefuseNew}}}, func(t *testing.T, q *Embedded) {
		untilFull(t, q)
		want := NoRoom{Cause: NoRoomBacklog, Sink: "audit", Since: time.Now(), Last: time.Now()}
		time.Sleep(time.Minute)
		wantNoRoom(t, q, want)
		q.Configure(map[string]Limits{"audit": {MaxBacklog: 5000, WhenFull: DropOldest}})
		wantNoRoom(t, q)
		if st := q.Stats().Sinks["audit"]; st.WhenFull != DropOldest || st.MaxBacklog != 5000 {
			t.Errorf("%+v", st)
		}
	})
}

func TestNoRoomOnTheDisk(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		began := time.Now()
		q.store.shortage.enter("000002.log")
		time.Sleep(3 * time.Second)
		if err := q.Append(t.Context(), benchEvent(1), toAudit); !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		wantNoRoom(t, q, NoRoom{Cause: NoRoomDisk, Since: began, Last: time.Now()})
		q.store.shortage.leave()
		wantNoRoom(t, q)
	})
}

// An order key that a delivery holds up is counted, with what waits behind it.
func TestBlockedKeysAreCounted(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, q *Embedded) {
		for i, key := range []string{"A", "A", "A", "B", "A", "B"} {
			routes := []event.Route{{Pipeline: "p", Sink: "audit", Order: event.OrderKey(key)}}
			if err := q.Append(t.Context(), benchEvent(uint64(i+1)), routes); err != nil {
				t.Fatal(err)
			}
		}
		a, b := takeOne(t, q, "audit", time.Hour), takeOne(t, q, "audit", time.Hour)
		if st := q.Stats().Sinks["audit"]; st.BlockedKeys != 0 || st.Behind != 0 || !st.NextDue.IsZero() {
			t.Errorf("both are tried for the first time: %+v", st)
		}
		due := time.Now().Add(time.Minute)
		settlements := []Settlement{{Lease: a.Lease, Attempts: 1, Retry: &Retry{At: due}}, {Lease: b.Lease, Delivered: true}}
		if err := q.Settle(t.Context(), settlements); err != nil {
			t.Fatal(err)
		}
		if st := q.Stats().Sinks["audit"]; st.BlockedKeys != 1 || st.Behind != 3 || !st.NextDue.IsZero() {
			t.Errorf("A is held up, B goes on: %+v", st)
		}
		b = takeOne(t, q, "audit", time.Hour)
		if err := q.Settle(t.Context(), []Settlement{{Lease: b.Lease, Delivered: true}}); err != nil {
			t.Fatal(err)
		}
		if st := q.Stats().Sinks["audit"]; st.BlockedKeys != 1 || st.Behind != 3 || st.Pending != 3 || !st.NextDue.Equal(due) {
			t.Errorf("there is nothing but A: %+v", st)
		}
		time.Sleep(time.Minute)
		for {
			l := takeOne(t, q, "audit", time.Hour)
			if err := q.Settle(t.Context(), []Settlement{{Lease: l.Lease, Delivered: true}}); err != nil {
				t.Fatal(err)
			}
			st := q.Stats().Sinks["audit"]
			if st.Pending == 0 {
				if st.BlockedKeys != 0 || st.Behind != 0 || !st.NextDue.IsZero() {
					t.Errorf("all were delivered: %+v", st)
				}
				return
			}
		}
	})
}

func TestWhenFullIsCalledAsConfigured(t *testing.T) {
	for w, want := range map[WhenFull]string{BuryNew: "dead_letter", RefuseNew: "refuse", DropOldest: "drop_oldest", 9: "WhenFull(9)"} {
		if w.String() != want {
			t.Errorf("%d: %q, want %q", uint8(w), w, want)
		}
	}
}

// A compaction that finds too little room leaves the last of it to what cannot wait for
// it: it could not even end otherwise. What is settled meanwhile goes to tables yet, and
// all goes on when there is room.
func TestTablesLeaveRoom(t *testing.T) {
	const reserve = 16 << 20
	bubble(t, Options{ReserveBytes: reserve}, func(t *testing.T, q *Embedded) {
		free := func(n uint64) {
			q.options.fs.(*vfs.MemFS).TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: n, TotalBytes: 1 << 30})
		}
		free(1 << 30)
		for n := range uint64(200) {
			if err := q.Append(t.Context(), benchEvent(n+1), toAudit); err != nil {
				t.Fatal(err)
			}
			if n%100 == 99 {
				if err := q.store.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		for range 10 { // what a compaction has to put together
			leased := takeOne(t, q, "audit", time.Minute)
			if err := q.Settle(t.Context(), []Settlement{{Lease: leased.Lease, Delivered: true, Attempts: 1}}); err != nil {
				t.Fatal(err)
			}
		}
		compact := func() error { // Pebble tries again by itself, for ever
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			return q.store.Compact(ctx, []byte{0}, []byte{0xff}, false)
		}

		free(reserve/8 - 1)
		if err := q.store.Flush(); err != nil {
			t.Errorf("a memtable finds no room: %v", err)
		}
		if err := compact(); err == nil {
			t.Error("a compaction takes the last of the disk")
		}
		if q.store.shortage.error() == nil {
			t.Error("nobody is told that the disk is full")
		}
		free(reserve / 8)
		if err := compact(); err != nil {
			t.Errorf("a compaction that may take the rest: %v", err)
		}

		leased := takeOne(t, q, "audit", time.Minute)
		if err := q.Settle(t.Context(), []Settlement{{Lease: leased.Lease, Delivered: true, Attempts: 1}}); err != nil {
			t.Fatal(err)
		}
		free(reserve/64 - 1)
		flushed, err := q.store.AsyncFlush()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		select {
		case <-flushed:
			t.Error("a memtable takes the last of the disk")
		default:
		}
		free(1 << 30)
		<-flushed
		if err := q.Append(t.Context(), benchEvent(1000), toAudit); err != nil && !errors.Is(err, ErrFull) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if err := q.Append(t.Context(), benchEvent(1001), toAudit); err != nil {
			t.Errorf("there is room again: %v", err)
		}
	})
}
