package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
)

// seeded returns a source of chance whose seed is printed.
func seeded(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// copyDir copies the files of a directory: while nothing is written to it, what a
// SIGKILL leaves.
func copyDir(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(from, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(to, e.Name()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// known is what a store is known to hold.
type known struct {
	pending map[string]bool // events that are not settled for audit
	dead    map[string]bool // events with a dead letter of slow
	settled map[string]bool
}

// furnish puts deliveries of all kinds into a queue: fresh, to be tried again, waiting
// for others of their order key, dead, settled; in tables and in logs.
func furnish(t testing.TB, q *Embedded, rng *rand.Rand, rounds, each int) known {
	t.Helper()
	k := known{pending: map[string]bool{}, dead: map[string]bool{}, settled: map[string]bool{}}
	seq := uint64(0)
	for round := range rounds {
		for range each {
			seq++
			ev := benchEvent(seq)
			ev.Body = make([]byte, 100+rng.IntN(900))
			for i := range ev.Body {
				ev.Body[i] = byte(rng.Uint32())
			}
			order := uint64(0)
			if seq%3 == 0 {
				order = 1 + seq%5
			}
			routes := []event.Route{{Pipeline: "p", Sink: "audit", Order: order}}
			if seq%4 == 0 {
				routes = append(routes, event.Route{Pipeline: "p", Sink: "slow"})
			}
			if err := q.Append(t.Context(), ev, routes); err != nil {
				t.Fatal(err)
			}
			k.pending[ev.ID.String()] = true
		}
		ls, err := q.Take(t.Context(), "audit", Want{MaxEvents: each / 2, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		var ss []Settlement
		for i, l := range ls {
			s := Settlement{Lease: l.Lease, Attempts: l.Attempts + 1}
			if i%3 == 0 {
				s.Retry = &Retry{At: time.Now(), Error: "later"}
			} else {
				s.Delivered = true
				delete(k.pending, l.Event.ID.String())
				k.settled[l.Event.ID.String()] = true
			}
			ss = append(ss, s)
		}
		if ls, err = q.Take(t.Context(), "slow", Want{MaxEvents: each / 10, MaxBytes: 16 << 20, Lease: time.Hour}); err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			ss = append(ss, Settlement{Lease: l.Lease, Attempts: 3, Dead: &event.Death{Reason: event.ReasonRejected, Error: "no"}})
			k.dead[l.Event.ID.String()] = true
		}
		if err := q.Settle(t.Context(), ss); err != nil {
			t.Fatal(err)
		}
		if round < rounds-1 {
			if err := q.store.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := q.Keep(t.Context(), "job-1", []byte("a note")); err != nil {
		t.Fatal(err) // synced: all settlements are, too
	}
	return k
}

// missing says what of k is not in q, or the error of reading it.
func (k known) missing(q *Embedded) (missing []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	have := map[string]bool{}
	for q.Stats().Sinks["audit"].Pending > 0 {
		ls, err := q.Take(ctx, "audit", Want{MaxEvents: 1000, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			return nil, err
		}
		var ss []Settlement
		for _, l := range ls {
			have[l.Event.ID.String()] = true
			ss = append(ss, Settlement{Lease: l.Lease, Delivered: true})
		}
		if err := q.Settle(ctx, ss); err != nil {
			return nil, err
		}
	}
	err = q.DeadLetters(ctx, Filter{Sink: "slow"}, func(d DeadLetter) bool {
		have["dead "+d.EventID.String()] = true
		return true
	})
	for id := range k.pending {
		if !have[id] {
			missing = append(missing, id)
		}
	}
	for id := range k.dead {
		if !have["dead "+id] {
			missing = append(missing, "dead "+id)
		}
	}
	return missing, err
}

// damages are what may happen to a file.
var damages = map[string]func(rng *rand.Rand, path string) error{
	"a flipped bit": func(rng *rand.Rand, path string) error {
		return rewrite(path, func(b []byte) []byte {
			b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
			return b
		})
	},
	"a flipped bit in the last block": func(rng *rand.Rand, path string) error {
		return rewrite(path, func(b []byte) []byte {
			b[len(b)-1-rng.IntN(min(len(b), 2000))] ^= 1 << rng.IntN(8)
			return b
		})
	},
	"cut off": func(rng *rand.Rand, path string) error {
		return rewrite(path, func(b []byte) []byte { return b[:rng.IntN(len(b))] })
	},
	"a page of zeros": func(rng *rand.Rand, path string) error {
		return rewrite(path, func(b []byte) []byte {
			at := rng.IntN(len(b)) &^ 4095
			clear(b[at:min(at+4096, len(b))])
			return b
		})
	},
	"removed": func(_ *rand.Rand, path string) error { return os.Remove(path) },
}

// someDamages are two of them by chance for each file, or all where the environment
// asks for that.
func someDamages(rng *rand.Rand) []string {
	names := slices.Sorted(maps.Keys(damages))
	if thorough() {
		return names
	}
	rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	return names[:2]
}

// thorough tells whether the tests of bad disks are to take minutes.
func thorough() bool { return os.Getenv("CALLBACKD_DISK_FAULTS") != "" }

func rewrite(path string, change func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return err
	}
	return os.WriteFile(path, change(b), 0o600)
}

// Damage of any file is reported with what to do, at the start or when it is read;
// or it harms nothing. Nothing that was answered goes without a word.
func TestDamageIsReported(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	rounds := 1 // each opens the store once for each file and damage
	if thorough() {
		rounds = 6
	}
	for _, killed := range []bool{true, false} {
		dir := t.TempDir()
		q := openBench(t, Options{Dir: dir, ReserveBytes: 1})
		k := furnish(t, q, rng, 4, 80)
		if !killed {
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
		}
		entries, err := os.ReadDir(copyDir(t, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			for _, name := range someDamages(rng) {
				reported, harmless := 0, 0
				for range rounds {
					copied := copyDir(t, dir)
					if err := damages[name](rng, filepath.Join(copied, e.Name())); err != nil {
						t.Fatal(err)
					}
					err := k.lookAt(copied)
					switch {
					case err == nil:
						harmless++
					case errors.Is(err, errSilent):
						t.Errorf("killed %v, %s, %s: %v", killed, e.Name(), name, err)
					case !strings.Contains(err.Error(), "is damaged") || !strings.Contains(err.Error(), copied):
						t.Errorf("killed %v, %s, %s: it does not say what to do: %v", killed, e.Name(), name, err)
					default:
						reported++
					}
				}
				t.Logf("killed %v, %s, %s: %d reported, %d harmless", killed, e.Name(), name, reported, harmless)
			}
		}
	}
}

var errSilent = errors.New("lost without a word")

// lookAt opens the store in dir and reads all of it.
func (k known) lookAt(dir string) error {
	q, err := Open(context.Background(), Options{Dir: dir, ReserveBytes: 1})
	if err != nil {
		return err
	}
	missing, err := k.missing(q)
	err = errors.Join(err, q.Close())
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %d of %d, such as %s", errSilent, len(missing), len(k.pending)+len(k.dead), missing[0])
	}
	return err
}
