package queue

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// place is where a part of a file is.
type place struct {
	file   string
	offset int
}

// places finds the events in the files that are a part of the store of q: by what
// their records begin with.
func places(t *testing.T, q *Embedded, dir string, ids []string, events map[string]*event.Event) map[string][]place {
	t.Helper()
	var files []string
	levels, err := q.store.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	for _, level := range levels {
		for _, table := range level {
			files = append(files, fmt.Sprintf("%06d.sst", table.FileNum))
		}
	}
	logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	slices.Sort(logs)
	log := filepath.Base(logs[len(logs)-1]) // all before were flushed
	files = append(files, log)
	found := make(map[string][]place)
	for _, file := range files {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		if file == log { // behind what was written there may be the rest of an older log
			b = b[:syncedLength(t, dir, log)]
		}
		for _, id := range ids {
			raw := events[id].ID
			if at := bytes.Index(b, append([]byte{1<<3 | 2, byte(len(raw))}, raw[:]...)); at >= 0 {
				found[id] = append(found[id], place{file, at})
			}
		}
	}
	return found
}

// syncedLength is up to where a file was synced.
func syncedLength(t *testing.T, dir, name string) int64 {
	t.Helper()
	files, _, err := readSynced(vfs.Default, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.name() == name {
			return f.length
		}
	}
	t.Fatalf("nobody knows how much of %s was synced", name)
	return 0
}

// contents are the files of a directory.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(b)
	}
	return all
}

// holds is all that a queue holds, taken out of it.
type holds struct{ audit, slow, dead map[string]bool }

// takeAll takes all out of a queue, which has to be empty then by its own account.
func takeAll(t *testing.T, q *Embedded) holds {
	t.Helper()
	h := holds{audit: map[string]bool{}, slow: map[string]bool{}, dead: map[string]bool{}}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for sink, seen := range map[string]map[string]bool{"audit": h.audit, "slow": h.slow} {
		for s := q.Stats().Sinks[sink]; s.Pending+s.Delayed > 0; s = q.Stats().Sinks[sink] {
			ls, err := q.Take(ctx, sink, Want{MaxEvents: 1000, MaxBytes: 16 << 20, Lease: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			var ss []Settlement
			for _, l := range ls {
				seen[l.Event.ID.String()] = true
				ss = append(ss, Settlement{Lease: l.Lease, Delivered: true})
			}
			if err := q.Settle(ctx, ss); err != nil {
				t.Fatal(err)
			}
		}
	}
	var letters []DeadKey
	err := q.DeadLetters(ctx, Filter{}, func(d DeadLetter) bool {
		h.dead[d.EventID.String()] = true
		letters = append(letters, d.Key)
		if found, err := q.DeadLetter(ctx, d.ID); err != nil || found.Error != "no" || found.Attempts != 3 {
			t.Errorf("dead letter %s: %+v, %v", d.ID, found, err)
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := q.Discard(ctx, letters); err != nil || n != len(letters) {
		t.Fatalf("%d of %d discarded: %v", n, len(letters), err)
	}
	st := q.Stats()
	if st.Bytes != 0 {
		t.Errorf("%d bytes are left when all is settled", st.Bytes)
	}
	for name, s := range st.Sinks {
		s.Delivered, s.Configured = 0, false
		if s != (SinkStats{}) {
			t.Errorf("sink %s when all is settled: %+v", name, s)
		}
	}
	for _, space := range []byte{spaceEvent, spaceLeft, spaceFresh, spaceDelayed, spaceDelayedAge, spaceParked, spaceChain, spaceDead, spaceDeadEvent} {
		if n := q.keysIn(space); n != 0 {
			t.Errorf("%d keys of space %q are left", n, space)
		}
	}
	return h
}

// Whatever file is damaged, and however: salvage brings back all that the damage did
// not hit, and writes nothing to the damaged store.
func TestSalvage(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	const rounds, each = 4, 120
	dir := t.TempDir()
	q := openBench(t, Options{Dir: dir, ReserveBytes: 1})
	k := furnish(t, q, rng, rounds, each)
	events := make(map[string]*event.Event)
	for seq := range uint64(rounds * each) {
		ev := benchEvent(seq + 1)
		events[ev.ID.String()] = ev
	}
	ids := slices.Collect(maps.Keys(k.pending))
	for id := range k.dead {
		ids = append(ids, id)
	}
	where := places(t, q, dir, ids, events)
	original := copyDir(t, dir)
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	// salvaged checks a damaged store; hit tells of a place whether it was damaged.
	salvaged := func(t *testing.T, dir string, hit func(place) bool) (result Salvaged, lost int) {
		t.Helper()
		before := contents(t, dir)
		to := filepath.Join(t.TempDir(), "new")
		result, err := Salvage(t.Context(), dir, to)
		if err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(before, contents(t, dir)) {
			t.Error("the damaged store was changed")
		}
		if entries, _ := os.ReadDir(filepath.Dir(to)); len(entries) != 1 {
			t.Errorf("beside the new queue, %d other files are left", len(entries)-1)
		}
		q, err := Open(t.Context(), Options{Dir: to, ReserveBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = q.Close() }()
		h := takeAll(t, q)
		check := func(what, id string, have bool) {
			switch intact := slices.ContainsFunc(where[id], func(p place) bool { return !hit(p) }); {
			case have:
			case intact:
				t.Errorf("%s %s was not damaged, and is lost: %v", what, id, where[id])
			default:
				lost++
			}
		}
		for id := range k.pending {
			check("event", id, h.audit[id])
		}
		for id := range k.dead {
			check("dead letter", id, h.dead[id] || h.slow[id])
		}
		return result, lost
	}
	none := func(place) bool { return false }

	t.Run("undamaged", func(t *testing.T) {
		copied := copyDir(t, original)
		if found, err := Inspect(t.Context(), copied); err != nil || len(found.Unreadable) > 0 {
			t.Errorf("inspected: %+v, %v", found, err)
		}
		result, _ := salvaged(t, copied, none)
		slow := int64(rounds*each/4 - len(k.dead))
		if len(result.Unreadable) > 0 || result.Assumed+result.Lost+result.BadRecords > 0 || result.Notes != 1 ||
			result.Sinks["audit"].Pending+result.Sinks["audit"].Delayed != int64(len(k.pending)) ||
			result.Sinks["slow"] != (SalvagedSink{Pending: slow, DeadLetters: int64(len(k.dead))}) {
			t.Errorf("%+v of %d pending, %d dead", result, len(k.pending), len(k.dead))
		}
	})
	entries, err := os.ReadDir(original)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		for _, name := range someDamages(rng) {
			t.Run(e.Name()+"/"+name, func(t *testing.T) {
				info, err := e.Info()
				if err != nil || info.Size() == 0 && name != "removed" {
					t.Skip("there is nothing to damage")
				}
				times := int64(1)
				if thorough() {
					times += min(info.Size()>>10, 5) // the larger ones several times
				}
				for range times {
					copied := copyDir(t, original)
					path := filepath.Join(copied, e.Name())
					if err := damages[name](rng, path); err != nil {
						t.Fatal(err)
					}
					changed := difference(t, filepath.Join(original, e.Name()), path)
					result, lost := salvaged(t, copied, func(p place) bool {
						return p.file == e.Name() && p.offset >= changed.from && p.offset < changed.to
					})
					if lost > 0 && len(result.Unreadable) == 0 {
						t.Errorf("%d are lost, and nothing is reported", lost)
					}
					if lost > 0 || result.Assumed > 0 {
						t.Logf("%d lost, %d assumed to be pending, %v", lost, result.Assumed, result.Unreadable)
					}
				}
			})
		}
	}
}

// span is a part of a file.
type span struct{ from, to int }

// difference is what a damage hit: the bytes that are not the same, with those that
// share a block with them.
func difference(t *testing.T, original, damaged string) span {
	t.Helper()
	a, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(damaged)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	const block = 36 << 10 // what is begun below the size of a block, and ends with one event more
	from := 0
	for from < len(b) && a[from] == b[from] {
		from++
	}
	to := len(a)
	for len(b) == len(a) && to > from && a[to-1] == b[to-1] {
		to--
	}
	if strings.HasSuffix(original, ".log") { // a record is not larger than one event
		return span{from - 3000, to + 3000}
	}
	return span{from - block, to + block}
}

// A directory that is none of a queue, one that is in use, and a target that is not
// empty are refused.
func TestSalvageRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openBench(t, Options{Dir: dir})
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ dir, to, want string }{
		"in use":               {dir, filepath.Join(t.TempDir(), "new"), "is in use by another process"},
		"no queue":             {t.TempDir(), filepath.Join(t.TempDir(), "new"), "holds no queue"},
		"no directory":         {filepath.Join(t.TempDir(), "none"), filepath.Join(t.TempDir(), "new"), "no such file"},
		"target not empty":     {t.TempDir(), full, "is not empty"},
		"target in the source": {dir, filepath.Join(dir, "new"), "choose a directory elsewhere"},
		"target is the source": {dir, dir, "choose a directory elsewhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Salvage(t.Context(), c.dir, c.to)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
