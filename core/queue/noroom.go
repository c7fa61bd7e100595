package queue

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// NoRoom is one reason for which events are refused at present.
type NoRoom struct {
	Cause NoRoomCause
	// Sink is the one whose backlog is full; else empty.
	Sink string
	// Since is when the first event was refused for it, Last when the latest one
	// was, as far as that is known: a full disk refuses without counting.
	Since, Last time.Time
}

// NoRoomCause says what there is no room in.
type NoRoomCause string

// The causes, in the order in which Stats has them.
const (
	// NoRoomDisk: writes find no room on the disk.
	NoRoomDisk NoRoomCause = "disk_full"
	// NoRoomReserve: the disk has less left than is to stay free.
	NoRoomReserve NoRoomCause = "reserve"
	// NoRoomQueue: the queue holds as many bytes as it may.
	NoRoomQueue NoRoomCause = "max_bytes"
	// NoRoomBacklog: the backlog of a sink is full, and nothing is to be accepted
	// that has a delivery to it.
	NoRoomBacklog NoRoomCause = "max_backlog"
)

// refusedFor is how long after an event was refused others still count as refused,
// though there may be room again: a queue at its limit refuses now one, now none.
const refusedFor = 5 * time.Second

// refusals remember for what events were refused. The committer notes, anybody
// reads.
type refusals struct {
	some atomic.Bool // there are some

	mu sync.Mutex
	of map[refusedBy]*refused
}

type refusedBy struct {
	cause NoRoomCause
	sink  string
}

// refused is a row of refusals for one reason, the last of which would have taken
// size bytes.
type refused struct {
	since, last time.Time
	size        int64
}

// note notes that an event of a size was refused.
func (r *refusals) note(by refusedBy, size int64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	row := r.of[by]
	if row == nil {
		if r.of == nil {
			r.of = make(map[refusedBy]*refused)
		}
		row = &refused{since: now}
		r.of[by] = row
		r.some.Store(true)
	}
	row.last, row.size = now, size
}

// accepted notes that there was room: a row of refusals that is not of the last
// moments ends.
func (r *refusals) accepted(by refusedBy, now time.Time) {
	if !r.some.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if row := r.of[by]; row != nil && now.Sub(row.last) >= refusedFor {
		r.forget(by)
	}
}

// forget is called with mu held.
func (r *refusals) forget(by refusedBy) {
	delete(r.of, by)
	r.some.Store(len(r.of) > 0)
}

// current returns those that go on: of the last moments, and those for which full
// says that the next event will not find room either.
func (r *refusals) current(now time.Time, full func(by refusedBy, size int64) bool) []NoRoom {
	if !r.some.Load() {
		return nil
	}
	r.mu.Lock()
	rows := make(map[refusedBy]refused, len(r.of))
	for by, row := range r.of {
		rows[by] = *row
	}
	r.mu.Unlock()
	var out []NoRoom
	for by, row := range rows {
		if now.Sub(row.last) < refusedFor || full(by, row.size) { // which may ask the disk
			out = append(out, NoRoom{Cause: by.cause, Sink: by.sink, Since: row.since, Last: row.last})
			continue
		}
		r.mu.Lock()
		if again := r.of[by]; again != nil && *again == row {
			r.forget(by)
		}
		r.mu.Unlock()
	}
	return out
}

// noRoom is why events are refused at present.
func (q *Embedded) noRoom(now time.Time) []NoRoom {
	out := q.refusals.current(now, q.stillFull)
	if since := q.store.shortage.lasting(); !since.IsZero() {
		out = append(out, NoRoom{Cause: NoRoomDisk, Since: since, Last: now})
	}
	order := []NoRoomCause{NoRoomDisk, NoRoomReserve, NoRoomQueue, NoRoomBacklog}
	slices.SortFunc(out, func(a, b NoRoom) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Cause), slices.Index(order, b.Cause)), cmp.Compare(a.Sink, b.Sink))
	})
	return out
}

// stillFull tells whether there is no room yet for an event of a size that was
// refused.
func (q *Embedded) stillFull(by refusedBy, size int64) bool {
	limits := q.limits.Load()
	switch by.cause {
	case NoRoomQueue:
		return q.bytes.Load()+size > limits.maxBytes
	case NoRoomReserve:
		return !hasRoom(q.options, limits)
	case NoRoomBacklog:
		s := q.knownSink(by.sink)
		if s == nil {
			return false
		}
		bounds := s.bounds.Load()
		if bounds == nil || bounds.WhenFull != RefuseNew || bounds.MaxBacklog <= 0 {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.counts.bytes+size > bounds.MaxBacklog
	}
	return false
}

// String is how the configuration calls it.
func (w WhenFull) String() string {
	switch w {
	case BuryNew:
		return "dead_letter"
	case RefuseNew:
		return "refuse"
	case DropOldest:
		return "drop_oldest"
	}
	return fmt.Sprintf("WhenFull(%d)", uint8(w))
}
