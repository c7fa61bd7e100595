package queue

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/oklog/ulid/v2"
)

// A key of a callback that is kept once is kept as a hash: keys come from outside
// and may be of any length. Two keys with the same hash, 128 bits of SHA-256, are
// not to be expected, nor to be made.

func onceHash(source, key string) (h [onceHashLen]byte) {
	b := binary.AppendUvarint(nil, uint64(len(source))) // two sources do not share keys
	sum := sha256.Sum256(append(append(b, source...), key...))
	copy(h[:], sum[:])
	return h
}

// onceValueLen is the length of what is kept with a key: the first event's id,
// and when the key is forgotten.
const onceValueLen = 16 + 8

// known tells whether the key of r is remembered, and sets the id to be answered.
func (c *committer) known(r *appendRequest, now time.Time) (bool, error) {
	if id, ok := c.onces[r.hash]; ok {
		r.first = id
		return true, nil
	}
	id, until, err := c.remembered(r.hash)
	r.expired = until
	if err != nil || until <= nanos(now) {
		return false, err
	}
	r.first = id
	return true, nil
}

// remembered reads what is kept of a key; until is the least time where there is
// nothing.
func (c *committer) remembered(hash [onceHashLen]byte) (id ulid.ULID, until int64, err error) {
	c.key = appendOnceKey(c.key[:0], hash)
	v, closer, err := c.q.store.Get(c.key)
	if errors.Is(err, pebble.ErrNotFound) {
		return id, math.MinInt64, nil
	}
	if err != nil {
		return id, 0, err
	}
	if len(v) != onceValueLen {
		return id, 0, errors.Join(damaged(fmt.Errorf("key %x has %d bytes", c.key, len(v))), closer.Close())
	}
	copy(id[:], v)
	until = int64(binary.BigEndian.Uint64(v[16:]))
	return id, until, closer.Close()
}

// remember keeps the key of r.
func (c *committer) remember(b *pebble.Batch, r *appendRequest, now time.Time) error {
	if r.expired > math.MinInt64 { // remembered once, and not swept yet
		c.key = appendOnceTimeKey(c.key[:0], r.expired, r.hash)
		if err := b.Delete(c.key, nil); err != nil {
			return err
		}
		c.state.bytes -= onceKeyLen + onceValueLen
	}
	until := nanos(now.Add(r.once.Window))
	c.onces[r.hash] = r.event.ID
	c.state.bytes += onceKeyLen + onceValueLen
	value := binary.BigEndian.AppendUint64(append(c.value[:0], r.event.ID[:]...), uint64(until))
	if err := c.set(b, appendOnceKey(c.key[:0], r.hash), value); err != nil {
		return err
	}
	c.state.once = min(c.state.once, until)
	c.key = appendOnceTimeKey(c.key[:0], until, r.hash)
	return b.Set(c.key, nil, nil)
}

// forget removes keys whose time is over, up to a number of them.
func (c *committer) forget(b *pebble.Batch, most int, now time.Time) (n int, err error) {
	it, err := c.q.store.NewIter(&pebble.IterOptions{
		LowerBound: appendTime([]byte{spaceOnceTime}, c.state.once),
		UpperBound: appendTime([]byte{spaceOnceTime}, nanos(now)),
	})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok && n < most; ok = it.Next() {
		k := it.Key()
		if len(k) != 1+8+onceHashLen {
			return n, damaged(fmt.Errorf("key %x is not one of space %q", k, spaceOnceTime))
		}
		at := int64(binary.BigEndian.Uint64(k[1:]) ^ (1 << 63))
		var hash [onceHashLen]byte
		copy(hash[:], k[9:])
		_, until, err := c.remembered(hash)
		if err != nil {
			return n, err
		}
		if until == at { // else it was remembered anew since
			if err := b.Delete(appendOnceKey(c.key[:0], hash), nil); err != nil {
				return n, err
			}
		}
		if err := b.Delete(k, nil); err != nil {
			return n, err
		}
		c.state.bytes -= onceKeyLen + onceValueLen
		c.state.once = at
		n++
	}
	return n, it.Error()
}
