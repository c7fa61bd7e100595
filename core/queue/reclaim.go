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
)

// reclaimer makes the store give back the space of what was settled. Pebble does
// so by itself as it is written to. But where nothing is accepted for want of
// space, little is written, and the space would never come back.
type reclaimer struct {
	q     *Embedded
	busy  atomic.Bool
	begun time.Time // the committer's
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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer cancel()
		select {
		case <-r.q.closing:
		case <-done:
		}
	}()
	go func() {
		defer r.q.readers.leave()
		defer r.busy.Store(false)
		defer close(done)
		if err := r.q.health.guard(func() error { return r.reclaim(ctx, enough) }); err != nil {
			// A compaction that finds no room removes what it began.
			r.q.options.Logger.Debug("space could not be reclaimed, it is tried again", "error", err)
		}
	}()
}

// reclaim compacts little by little, so that it needs little room itself: the span of
// one table after the other. Those of the oldest events come first.
func (r *reclaimer) reclaim(ctx context.Context, enough func() bool) error {
	if err := r.q.store.Flush(); err != nil { // what was settled last is in memory only
		return err
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
