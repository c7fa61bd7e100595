package queue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// edit is a change that is neither an append nor a settlement. It is committed
// alone, so it sees all that was committed before, and synced.
type edit struct {
	run       func(c *committer, b *pebble.Batch, now time.Time) error
	cancelled bool
	err       error // ErrClosed, where the queue was closed before
}

// edit commits an edit. While ctx has ended before the commit began, nothing is
// changed.
func (q *Embedded) edit(ctx context.Context, run func(c *committer, b *pebble.Batch, now time.Time) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := q.usable(); err != nil {
		return err
	}
	e := &edit{run: run}
	g, err := q.groups.joinAlone(e)
	if err != nil {
		return err
	}
	answered, err := q.await(ctx, g, func() { e.cancelled = true })
	if !answered {
		return err
	}
	return e.err
}

// What a sweep removes at once, and how long it rests where nothing is left to
// be removed.
const (
	sweepMost  = 2048
	sweepEvery = 30 * time.Second
)

// sweep removes what has become too old, or is above a limit that was lowered since,
// and tells whether there may be more.
func (c *committer) sweep(b *pebble.Batch, now time.Time) (more bool, err error) {
	for _, s := range c.q.allSinks() {
		bounds := s.bounds.Load()
		if bounds == nil || s.id == 0 || (bounds.DeadMaxAge <= 0 && bounds.DeadMaxBytes <= 0) {
			continue
		}
		m, err := c.discardOldest(b, s, sweepMost, func(ch *changes, died int64) (remove, aged bool) {
			aged = bounds.DeadMaxAge > 0 && died < nanos(now.Add(-bounds.DeadMaxAge))
			return aged || tooManyDead(bounds, ch), aged
		})
		if err != nil {
			return false, err
		}
		more = more || m
	}
	n, err := c.forget(b, sweepMost, now)
	return more || n == sweepMost, err
}

// maxNote bounds a note, in bytes.
const maxNote = 64 << 10

// Keep implements Queue.
func (q *Embedded) Keep(ctx context.Context, name string, note []byte) error {
	switch {
	case name == "" || len(name) > 255:
		return fmt.Errorf("note %q: its name has %d bytes, 1 to 255 are possible", name, len(name))
	case len(note) > maxNote:
		return fmt.Errorf("note %s: it has %d bytes, at most %d are possible", name, len(note), maxNote)
	}
	return q.edit(ctx, func(c *committer, b *pebble.Batch, _ time.Time) error {
		c.key = appendNoteKey(c.key[:0], name)
		if note == nil {
			return b.Delete(c.key, nil)
		}
		return b.Set(c.key, note, nil)
	})
}

// Notes implements Queue.
func (q *Embedded) Notes(ctx context.Context) (map[string][]byte, error) {
	if err := errors.Join(ctx.Err(), q.usable()); err != nil {
		return nil, err
	}
	notes := make(map[string][]byte)
	err := q.reading(func() (err error) {
		it, err := q.store.NewIter(&pebble.IterOptions{LowerBound: []byte{spaceNote}, UpperBound: []byte{spaceNote + 1}})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, it.Close()) }()
		for ok := it.First(); ok; ok = it.Next() {
			notes[string(it.Key()[1:])] = append([]byte(nil), it.Value()...)
		}
		return it.Error()
	})
	if err != nil {
		return nil, err
	}
	return notes, nil
}
