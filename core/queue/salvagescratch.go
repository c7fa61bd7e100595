package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"golang.org/x/time/rate"
)

// scratch is where the newest entry of every key is found out: a store of its own,
// since there may be more of them than memory. An entry is kept under its key:
// sequence number 8, deleted 1, value.
type scratch struct {
	db    *pebble.DB
	batch *pebble.Batch
	// state are the newest entries of the few keys that every commit writes.
	state map[string]entry
}

const (
	scratchHead  = 9
	scratchBatch = 4 << 20
	// scratchIndex is the space of the deliveries by event, below all others.
	scratchIndex = 0x01
)

func openScratch(dir string, h *health) (*scratch, error) {
	o := &pebble.Options{
		FormatMajorVersion: pebble.FormatWALSyncChunks, DisableWAL: true, MemTableSize: 32 << 20, CacheSize: 64 << 20,
		L0StopWritesThreshold: 1000, Logger: storeLog{log: slog.New(slog.DiscardHandler), health: h, errors: &rate.Sometimes{}},
		EventListener: &pebble.EventListener{BackgroundError: h.fail},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, err
	}
	return &scratch{db: db, batch: db.NewIndexedBatch(), state: make(map[string]entry)}, nil
}

func (s *scratch) close() error { return errors.Join(s.batch.Close(), s.db.Close()) }

// add keeps an entry where it is the newest of its key.
func (s *scratch) add(e entry) error {
	if len(e.key) == 0 {
		return nil
	}
	switch e.key[0] {
	case spaceMeta, spaceSink, spaceName:
		if old, ok := s.state[string(e.key)]; !ok || old.seq < e.seq {
			e.value = bytes.Clone(e.value)
			s.state[string(e.key)] = e
		}
		return nil
	case spaceEvent, spaceLeft, spaceFresh, spaceDelayed, spaceParked, spaceDead, spaceOnce, spaceNote:
	default:
		return nil // it is made anew of the others
	}
	old, closer, err := s.batch.Get(e.key)
	if err == nil {
		known := binary.BigEndian.Uint64(old)
		if err := closer.Close(); err != nil || known >= e.seq {
			return err
		}
	} else if !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	value := binary.BigEndian.AppendUint64(make([]byte, 0, scratchHead+len(e.value)), e.seq)
	if e.deleted {
		value = append(value, 1)
	} else {
		value = append(append(value, 0), e.value...)
	}
	return s.set(e.key, value)
}

func (s *scratch) set(key, value []byte) error {
	if err := s.batch.Set(key, value, nil); err != nil || s.batch.Len() < scratchBatch {
		return err
	}
	return s.flush()
}

func (s *scratch) flush() error {
	if err := s.batch.Commit(pebble.NoSync); err != nil {
		return err
	}
	if err := s.batch.Close(); err != nil {
		return err
	}
	s.batch = s.db.NewIndexedBatch()
	return nil
}

// each calls f with the entries of a space that are not deleted, in the order of
// their keys.
func (s *scratch) each(ctx context.Context, space byte, f func(key []byte, seq uint64, value []byte) error) (err error) {
	if err := s.flush(); err != nil {
		return err
	}
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{space}, UpperBound: []byte{space + 1}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		v := it.Value()
		if len(v) < scratchHead || v[8] != 0 {
			continue
		}
		if err := f(it.Key(), binary.BigEndian.Uint64(v), v[scratchHead:]); err != nil {
			return err
		}
	}
	return it.Error()
}

// left is how many deliveries of an event are left by what is kept of it. known is
// false where nothing is.
func (s *scratch) left(seq uint64) (n int, known bool, err error) {
	v, closer, err := s.db.Get(appendLeftKey(nil, seq))
	if errors.Is(err, pebble.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if len(v) >= scratchHead && v[8] == 0 {
		if left, err := decodeNumber(v[scratchHead:]); err == nil && left <= maxRoutes {
			n, known = int(left), true
		}
	}
	return n, known, closer.Close()
}

// found is a delivery that was found.
type found struct {
	space  byte
	seq    uint64 // of the entry
	sink   uint32
	at     int64
	record []byte
}

// beats tells whether f is more likely to be what became of a delivery than o, of
// which both are found where the end of one of them is lost.
func (f found) beats(o found) bool {
	if f.seq != o.seq && f.seq != 0 && o.seq != 0 {
		return f.seq > o.seq
	}
	// To be tried again, because it was redriven or because it is not dead yet; then
	// dead, then what was not tried.
	rank := func(space byte) int {
		return bytes.IndexByte([]byte{spaceFresh, spaceParked, spaceDead, spaceDelayed}, space)
	}
	return rank(f.space) > rank(o.space)
}

func (f found) encode() []byte {
	b := append([]byte(nil), f.space)
	b = binary.BigEndian.AppendUint64(b, f.seq)
	b = binary.BigEndian.AppendUint32(b, f.sink)
	b = binary.BigEndian.AppendUint64(b, uint64(f.at))
	return append(b, f.record...)
}

const foundHead = 1 + 8 + 4 + 8

func decodeFound(b []byte) found {
	return found{
		space: b[0], seq: binary.BigEndian.Uint64(b[1:]), sink: binary.BigEndian.Uint32(b[9:]),
		at: int64(binary.BigEndian.Uint64(b[13:])), record: b[foundHead:],
	}
}

// index keeps the deliveries by event.
func (s *scratch) index(ctx context.Context, bad *int64) error {
	for _, space := range []byte{spaceFresh, spaceDelayed, spaceParked, spaceDead} {
		var keys, values [][]byte // what is being read is not to be written to
		err := s.each(ctx, space, func(key []byte, seq uint64, value []byte) error {
			pos, ok := placeOf(space, key)
			if _, err := decodeDelivery(value); err != nil || !ok {
				*bad++
				return nil //nolint:nilerr // counted, and the others are read
			}
			f := found{space: space, seq: seq, sink: binary.BigEndian.Uint32(key[1:]), at: pos.at, record: value}
			k := binary.BigEndian.AppendUint64([]byte{scratchIndex}, pos.seq)
			k = binary.BigEndian.AppendUint32(k, pos.index)
			keys, values = append(keys, k), append(values, f.encode())
			if len(keys) < 4096 {
				return nil
			}
			err := s.enter(keys, values)
			keys, values = keys[:0], values[:0]
			return err
		})
		if err == nil {
			err = s.enter(keys, values)
		}
		if err != nil {
			return err
		}
	}
	return s.flush()
}

func (s *scratch) enter(keys, values [][]byte) error {
	for i, k := range keys {
		old, closer, err := s.batch.Get(k)
		if err == nil {
			keep := !decodeFound(values[i]).beats(decodeFound(old))
			if err := closer.Close(); err != nil {
				return err
			}
			if keep {
				continue
			}
		} else if !errors.Is(err, pebble.ErrNotFound) {
			return err
		}
		if err := s.set(k, values[i]); err != nil {
			return err
		}
	}
	return nil
}

// placeOf reads the key of a delivery.
func placeOf(space byte, key []byte) (pos position, ok bool) {
	var err error
	switch space {
	case spaceFresh:
		pos, err = parseFreshKey(key)
	case spaceParked:
		_, pos, err = parseParkedKey(key)
	default:
		pos, err = parseTimedKey(key, space)
	}
	return pos, err == nil
}
