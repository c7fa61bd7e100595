package queue

import (
	"bytes"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const (
	// reclaimEvery is how often space is reclaimed at most, while there is little.
	reclaimEvery = 2 * time.Second
	// garbageParts: less garbage than one part in so many of the tables is not
	// worth the writing.
	garbageParts = 8

	// lookEvery is how often it is looked whether little is written: less than one
	// part in quietParts of a memtable since the last look.
	lookEvery  = 10 * time.Second
	quietParts = 16
	// Garbage that is not needed for the reserve is worth the writing from so many
	// bytes on, where it is one part in so many of the tables.
	leastGarbage      = 16 << 20
	quietGarbageParts = 2
)

// reclaimer makes the store give back the space of what was settled. Pebble does
// so by itself as it is written to. But where nothing is accepted for want of
// space, or nothing comes in, little is written, and the space would never come
// back: that an event is settled takes some bytes in memory, whatever its size.
type reclaimer struct {
	q     *Embedded
	busy  atomic.Bool
	begun time.Time // the committer's
	quiet quiet
}

// quiet is what the looks for a time in which little is written remember. It is
// theirs alone.
type quiet struct {
	written uint64 // in all, at the last look
	left    int64  // the garbage that reclaiming left; not negative
	failed  int    // how many times in a row there was no room to reclaim
	rests   int    // looks until it is tried again
}

// mostRests is how many looks pass at most after there was no room to reclaim.
const mostRests = 60

// usage is what the store has done and has, in bytes.
type usage struct {
	written uint64 // to its log, since it was opened
	tables  int64
	garbage int64 // about what the tables have of nothing that is kept
}

// worth tells whether little was written since the last look, less than most, and
// there is garbage that is worth the writing.
func (l *quiet) worth(u usage, most uint64) bool {
	before := l.written
	// What is kept in memory only makes it seem that there is less than no garbage.
	l.written, l.left = u.written, max(0, min(l.left, u.garbage))
	if l.rests > 0 {
		l.rests--
		return false
	}
	more := u.garbage - l.left
	return u.written-before < most && more >= leastGarbage && more >= u.tables/quietGarbageParts
}

// done notes that garbage is left, as much as could be reclaimed was.
func (l *quiet) done(garbage int64) { l.left, l.failed = max(0, garbage), 0 }

// tryLater notes that there was no room to reclaim: each try may fill the disk for a
// moment.
func (l *quiet) tryLater() {
	l.rests = min(1<<l.failed, mostRests)
	l.failed = min(l.failed+1, 10)
}

// start reclaims in the background, until there is enough space or the queue is
// closed. The committer calls it.
func (r *reclaimer) start(now time.Time, enough func() bool) {
	if now.Sub(r.begun) < reclaimEvery || !r.busy.CompareAndSwap(false, true) {
		return
	}
	r.begun = now
	if !r.q.readers.enter() {
		return // closed
	}
	go func() {
		defer r.q.readers.leave()
		defer r.busy.Store(false)
		_ = r.run(enough) // start is called again where there is not enough
	}()
}

// run reclaims until there is enough space or the queue is closed, which is no error.
func (r *reclaimer) run(enough func() bool) error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer cancel()
		select {
		case <-r.q.closing:
		case <-done:
		}
	}()
	defer close(done)
	err := r.q.health.guard(func() error { return r.reclaim(ctx, enough) })
	if err == nil || ctx.Err() != nil {
		return nil
	}
	// A compaction that finds no room removes what it began.
	r.q.options.Logger.Debug("space could not be reclaimed, it is tried again", "error", err)
	return err
}

// watch looks for times in which little is written, until the queue is closed or has
// failed.
func (r *reclaimer) watch() {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.q.closing:
			return
		case <-r.q.health.failed:
			return
		case <-ticker.C:
		}
		if !r.q.readers.enter() {
			return
		}
		err := r.q.health.guard(func() error { r.look(); return nil })
		r.q.readers.leave()
		if err != nil {
			return // the store has failed
		}
	}
}

// look reclaims space where little was written since the last look, and goes on until
// more is.
func (r *reclaimer) look() {
	most := uint64(memTableSize(r.q.options.ReserveBytes) / quietParts)
	u := r.usage()
	if !r.quiet.worth(u, most) || r.q.store.shortage.error() != nil || !r.busy.CompareAndSwap(false, true) {
		return
	}
	defer r.busy.Store(false)
	interrupted := func() bool { return r.usage().written-u.written >= most }
	switch err := r.run(interrupted); {
	case err != nil:
		r.quiet.tryLater()
	case !interrupted():
		r.quiet.done(r.usage().garbage)
	}
}

func (r *reclaimer) usage() usage {
	m := r.q.store.Metrics()
	u := usage{written: m.WAL.BytesIn}
	for i := range m.Levels {
		u.tables += m.Levels[i].TablesSize
	}
	u.garbage = u.tables - r.q.bytes.Load()
	return u
}

// reclaim compacts little by little, so that it needs little room itself: the span of
// one table after the other, those of the oldest events first. A table of settlements
// alone may span many events; what is kept of these is written before the rest is freed.
func (r *reclaimer) reclaim(ctx context.Context, enough func() bool) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	flushed, err := r.q.store.AsyncFlush() // what was settled last is in memory only
	if err != nil {
		return err
	}
	select {
	case <-flushed:
	case <-ctx.Done(): // where there is no room it lasts
		return ctx.Err()
	}
	levels, err := r.q.store.SSTables()
	if err != nil {
		return err
	}
	var size int64
	var tables []pebble.SSTableInfo
	for _, level := range levels {
		for i := range level {
			size += int64(level[i].Size)
		}
		tables = append(tables, level...)
	}
	if size-r.q.bytes.Load() < size/garbageParts {
		return nil
	}
	slices.SortFunc(tables, func(a, b pebble.SSTableInfo) int { return bytes.Compare(a.Smallest.UserKey, b.Smallest.UserKey) })
	var done []byte // everything before it is compacted
	for i := range tables {
		if enough() || ctx.Err() != nil {
			return ctx.Err()
		}
		after := append(slices.Clone(tables[i].Largest.UserKey), 0)
		if bytes.Compare(after, done) <= 0 {
			continue
		}
		if err := r.q.store.Compact(ctx, tables[i].Smallest.UserKey, after, false); err != nil {
			return err
		}
		done = after
	}
	return nil
}
