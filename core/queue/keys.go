package queue

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/oklog/ulid/v2"
)

// The layout of the store. All numbers in keys are big-endian; times are
// nanoseconds since 1970 with the sign bit flipped, so that keys sort by time.
//
//	m v                             format version
//	m c                             counters: next sequence, next sink number, bytes
//	n <sink>                        name of a sink
//	s <sink>                        state of a sink: counters, low-water marks
//	e <seq>                         event with its routes, kept once
//	r <seq>                         how many deliveries of the event are left; only
//	                                where it had several and one was settled
//	p <sink> <seq> <index>          delivery that was never tried
//	d <sink> <due> <seq> <index>    delivery that is to be tried again
//	o <sink> <since> <seq> <index>  the same ones by age
//	k <sink> <key> <seq> <index>    delivery that waits behind another one of its
//	                                order key, which is to be tried again
//	h <sink> <key>                  how many deliveries of the order key are in d
//	                                (that is one) and in k; only where there are
//	x <sink> <died> <seq> <index>   dead letter
//	i <event id> <seq> <index>      the same ones by event: their sink and time
//	u <hash>                        key of a callback that is kept once: the event's
//	                                id, and when the key is forgotten
//	w <forgotten> <hash>            the same ones by time
//	j <name>                        note
//
// <seq> is the commit sequence of the event, <index> the place of the delivery
// among the event's routes. A delivery that is not settled is in exactly one of
// p, d and k. Of those with the same order key, those in p were accepted after
// those in k, and those after the one in d. The keys of e and p are written once and deleted once in the life
// of a store, which is what allows single deletes of them.
const (
	spaceMeta       = 'm'
	spaceName       = 'n'
	spaceSink       = 's'
	spaceEvent      = 'e'
	spaceLeft       = 'r'
	spaceFresh      = 'p'
	spaceDelayed    = 'd'
	spaceDelayedAge = 'o'
	spaceParked     = 'k'
	spaceChain      = 'h'
	spaceDead       = 'x'
	spaceDeadEvent  = 'i'
	spaceOnce       = 'u'
	spaceOnceTime   = 'w'
	spaceNote       = 'j'
)

const (
	eventKeyLen = 1 + 8
	freshKeyLen = 1 + 4 + 8 + 4
	timedKeyLen = 1 + 4 + 8 + 8 + 4
	deadKeyLen  = timedKeyLen + 1 + 16 + 8 + 4 // with its place by event
	onceHashLen = 16
	onceKeyLen  = 1 + onceHashLen + 1 + 8 + onceHashLen // with its place by time
)

func keyFormat() []byte   { return []byte{spaceMeta, 'v'} }
func keyCounters() []byte { return []byte{spaceMeta, 'c'} }

// position orders the deliveries of one sink within a key space. at is a time in
// nanoseconds, and 0 where the space is ordered by sequence alone.
type position struct {
	at    int64
	seq   uint64
	index uint32
}

// lastPosition is after all others.
func lastPosition() position {
	return position{at: math.MaxInt64, seq: math.MaxUint64, index: math.MaxUint32}
}

func (p position) less(o position) bool {
	if p.at != o.at {
		return p.at < o.at
	}
	if p.seq != o.seq {
		return p.seq < o.seq
	}
	return p.index < o.index
}

// after is the position that follows p directly.
func (p position) after() position {
	if p.index < math.MaxUint32 {
		p.index++
		return p
	}
	p.index = 0
	if p.seq < math.MaxUint64 {
		p.seq++
		return p
	}
	return lastPosition()
}

func earlier(a, b position) position {
	if b.less(a) {
		return b
	}
	return a
}

// nanos clamps t to what nanoseconds in an int64 can say.
func nanos(t time.Time) int64 {
	switch year := t.Year(); {
	case year < 1679:
		return math.MinInt64
	case year > 2261:
		return math.MaxInt64
	}
	return t.UnixNano()
}

func appendTime(b []byte, at int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(at)^(1<<63))
}

func appendEventKey(b []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, spaceEvent), seq)
}

func appendLeftKey(b []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, spaceLeft), seq)
}

func appendSinkKey(b []byte, space byte, sink uint32) []byte {
	return binary.BigEndian.AppendUint32(append(b, space), sink)
}

func appendFreshKey(b []byte, sink uint32, p position) []byte {
	b = appendSinkKey(b, spaceFresh, sink)
	b = binary.BigEndian.AppendUint64(b, p.seq)
	return binary.BigEndian.AppendUint32(b, p.index)
}

// appendTimedKey makes the keys of the spaces d, o and x.
func appendTimedKey(b []byte, space byte, sink uint32, p position) []byte {
	b = appendTime(appendSinkKey(b, space, sink), p.at)
	b = binary.BigEndian.AppendUint64(b, p.seq)
	return binary.BigEndian.AppendUint32(b, p.index)
}

func parseFreshKey(k []byte) (position, error) {
	if len(k) != freshKeyLen || k[0] != spaceFresh {
		return position{}, fmt.Errorf("key %x is not that of a delivery", k)
	}
	return position{
		seq:   binary.BigEndian.Uint64(k[5:]),
		index: binary.BigEndian.Uint32(k[13:]),
	}, nil
}

func parseTimedKey(k []byte, space byte) (position, error) {
	if len(k) != timedKeyLen || k[0] != space {
		return position{}, fmt.Errorf("key %x is not one of space %q", k, space)
	}
	return position{
		at:    int64(binary.BigEndian.Uint64(k[5:]) ^ (1 << 63)),
		seq:   binary.BigEndian.Uint64(k[13:]),
		index: binary.BigEndian.Uint32(k[21:]),
	}, nil
}

func appendParkedKey(b []byte, sink uint32, order uint64, p position) []byte {
	b = binary.BigEndian.AppendUint64(appendSinkKey(b, spaceParked, sink), order)
	b = binary.BigEndian.AppendUint64(b, p.seq)
	return binary.BigEndian.AppendUint32(b, p.index)
}

func parseParkedKey(k []byte) (order uint64, pos position, err error) {
	if len(k) != timedKeyLen || k[0] != spaceParked {
		return 0, position{}, fmt.Errorf("key %x is not that of a delivery that waits for another", k)
	}
	pos = position{seq: binary.BigEndian.Uint64(k[13:]), index: binary.BigEndian.Uint32(k[21:])}
	return binary.BigEndian.Uint64(k[5:]), pos, nil
}

func appendChainKey(b []byte, sink uint32, order uint64) []byte {
	return binary.BigEndian.AppendUint64(appendSinkKey(b, spaceChain, sink), order)
}

func appendDeadEventKey(b []byte, id ulid.ULID, seq uint64, index uint32) []byte {
	b = append(append(b, spaceDeadEvent), id[:]...)
	b = binary.BigEndian.AppendUint64(b, seq)
	return binary.BigEndian.AppendUint32(b, index)
}

func appendOnceKey(b []byte, hash [onceHashLen]byte) []byte {
	return append(append(b, spaceOnce), hash[:]...)
}

func appendOnceTimeKey(b []byte, at int64, hash [onceHashLen]byte) []byte {
	return append(appendTime(append(b, spaceOnceTime), at), hash[:]...)
}

func appendNoteKey(b []byte, name string) []byte { return append(append(b, spaceNote), name...) }
