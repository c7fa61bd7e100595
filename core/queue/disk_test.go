package queue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
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

// chance is an injector that makes one kind of operations on one kind of files fail,
// from some operation of that kind on.
type chance struct {
	kind   errorfs.OpKind
	part   string
	err    error
	after  atomic.Int64 // operations of the kind left until it fails
	failed atomic.Int64
	healed atomic.Bool
}

func (c *chance) String() string { return fmt.Sprintf("%v of %q fails with %v", c.kind, c.part, c.err) }

func (c *chance) MaybeError(op errorfs.Op) error {
	if op.Kind != c.kind || !strings.Contains(path.Base(op.Path), c.part) || c.healed.Load() || c.after.Add(-1) >= 0 {
		return nil
	}
	c.failed.Add(1)
	return c.err
}

// Whatever operation on whatever file fails, at whatever moment: nothing is answered
// that is not kept, nothing hangs, and after a power cut all that was answered is
// there, and no store that was cut off is taken for a damaged one. A disk without
// room fails nothing at all, and goes on when there is some.
func TestAnyOperationFails(t *testing.T) {
	t.Parallel()
	rng := seeded(t)
	all := []string{".log", ".sst", "MANIFEST", ""}
	plausible := []struct {
		kind  errorfs.OpKind
		parts []string
	}{
		{errorfs.OpCreate, append(all, "marker")},
		{errorfs.OpOpen, []string{".sst"}},
		{errorfs.OpRemove, all},
		{errorfs.OpReuseForWrite, []string{""}},
		{errorfs.OpGetDiskUsage, []string{""}},
		{errorfs.OpStat, []string{""}},
		{errorfs.OpFileReadAt, []string{".sst"}},
		{errorfs.OpFileWrite, all},
		{errorfs.OpFileWriteAt, []string{syncedName}},
		{errorfs.OpFileSync, append(all, "q")},
		{errorfs.OpFileSyncData, []string{".log", "MANIFEST"}},
		{errorfs.OpFileStat, all},
		{errorfs.OpFilePreallocate, []string{""}},
	}
	tried, met, survived := 0, 0, 0
	enough, end := 15, time.Now().Add(time.Minute)
	if thorough() {
		enough, end = 1_000_000, time.Now().Add(3*time.Minute) // what has failed stays in memory
	}
	for met < enough && time.Now().Before(end) && !t.Failed() {
		p := plausible[rng.IntN(len(plausible))]
		c := &chance{kind: p.kind, part: p.parts[rng.IntN(len(p.parts))], err: syscall.EIO}
		c.after.Store(1 << 40) // not at the start
		full := rng.IntN(3) == 0 && (c.kind == errorfs.OpCreate || c.kind == errorfs.OpFileWrite)
		if full {
			c.err = syscall.ENOSPC
		}
		tried++
		failed, hit := loadWithFault(t, rng, c, full)
		if hit {
			met++
		}
		if hit && !failed {
			survived++
		}
		if hit && failed && full {
			t.Errorf("%v: a full disk failed the queue", c)
		}
	}
	t.Logf("%d of %d faults were met, %d of them without harm", met, tried, survived)
	if met < 5 {
		t.Error("this tests next to nothing")
	}
}

// loadWithFault loads a queue, lets c fail, cuts the power and looks at what is left.
func loadWithFault(t *testing.T, rng *rand.Rand, c *chance, heal bool) (failed, hit bool) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	q, err := Open(t.Context(), Options{Dir: "/q", fs: errorfs.Wrap(mem, c), StallTimeout: 3 * time.Second, ReserveBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	answered, settled := map[string]bool{}, map[string]bool{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	usual := func(err error) bool {
		return err == nil || errors.Is(err, ErrFailed) || errors.Is(err, ErrFull) || errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled)
	}
	for a := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil && q.Err() == nil; i++ {
				ev := benchEvent(uint64(a*1_000_000 + i + 1))
				ev.Body = make([]byte, 16<<10)
				err := q.Append(ctx, ev, toAudit)
				if err == nil {
					mu.Lock()
					answered[ev.ID.String()] = true
					mu.Unlock()
				} else if !usual(err) {
					t.Errorf("%v: append: %v", c, err)
				}
				if errors.Is(err, ErrFull) {
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Go(func() {
		for ctx.Err() == nil && q.Err() == nil {
			ls, err := q.Take(ctx, "audit", Want{MaxEvents: 20, MaxBytes: 1 << 20, Lease: time.Hour})
			if !usual(err) {
				t.Errorf("%v: take: %v", c, err)
			}
			var ss []Settlement
			for i, l := range ls {
				s := Settlement{Lease: l.Lease, Attempts: 1}
				switch i % 4 {
				case 0:
					s.Retry = &Retry{At: time.Now()}
				default:
					s.Delivered = true
					mu.Lock()
					settled[l.Event.ID.String()] = true
					mu.Unlock()
				}
				ss = append(ss, s)
			}
			if err := q.Settle(ctx, ss); !usual(err) {
				t.Errorf("%v: settle: %v", c, err)
			}
		}
	})
	time.Sleep(time.Duration(rng.IntN(60)) * time.Millisecond)
	c.after.Store(rng.Int64N(4))
	go func() { _, _ = q.store.AsyncFlush() }()
	time.Sleep(time.Duration(20+rng.IntN(150)) * time.Millisecond)
	if heal {
		c.healed.Store(true)
		mu.Lock()
		before := len(answered)
		mu.Unlock()
		for deadline := time.Now().Add(10 * time.Second); q.Err() == nil; time.Sleep(time.Millisecond) {
			mu.Lock()
			now := len(answered)
			mu.Unlock()
			if now > before+5 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v: nothing is accepted when there is room again", c)
			}
		}
	}
	cancel()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		stacks := make([]byte, 1<<20)
		t.Fatalf("%v: the queue hangs\n%s", c, stacks[:runtime.Stack(stacks, true)])
	}
	failed, hit = q.Err() != nil, c.failed.Load() > 0
	cut := vfs.CrashCloneCfg{}
	if rng.IntN(2) == 0 {
		cut = vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng}
	}
	after := mem.CrashClone(cut)
	c.healed.Store(true)
	if !failed {
		_ = q.Close()
	}
	again, err := Open(context.WithoutCancel(t.Context()), Options{Dir: "/q", fs: after, ReserveBytes: 1})
	if err != nil {
		t.Fatalf("%v, then a power cut: %v", c, err)
	}
	have := map[string]bool{}
	look, cancelLook := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancelLook()
	// What is to be tried again counts as delayed until it was read from the disk.
	for st := again.Stats().Sinks["audit"]; st.Pending+st.Delayed > 0; st = again.Stats().Sinks["audit"] {
		ls, err := again.Take(look, "audit", Want{MaxEvents: 1000, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			t.Fatalf("%v, then a power cut: %d pending and %d delayed: %v", c, st.Pending, st.Delayed, err)
		}
		for _, l := range ls {
			have[l.Event.ID.String()] = true
		}
	}
	_ = again.Close()
	lost := 0
	for id := range answered {
		if !have[id] && !settled[id] {
			lost++
		}
	}
	if lost > 0 {
		t.Errorf("%v: %d of %d that were answered are lost", c, lost, len(answered))
	}
	return failed, hit
}

// slow makes every sync take its time.
type slow struct {
	by    atomic.Int64
	syncs atomic.Int64
}

func (s *slow) String() string { return "slow" }

func (s *slow) MaybeError(op errorfs.Op) error {
	if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData {
		time.Sleep(time.Duration(s.by.Load()))
		s.syncs.Add(1)
	}
	return nil
}

// A disk that is slow but works fails nothing: many callers share each sync.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	const syncTime = 50 * time.Millisecond // where a commit may take 30 s, this is 200 ms
	s := &slow{}
	q, err := Open(t.Context(), Options{Dir: "/q", fs: errorfs.Wrap(vfs.NewMem(), s), StallTimeout: 150 * syncTime, ReserveBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.by.Store(int64(syncTime))
	const callers, each = 32, 5
	var longest atomic.Int64
	var wg sync.WaitGroup
	for a := range callers {
		wg.Go(func() {
			for i := range each {
				ev := benchEvent(uint64(a*each + i + 1))
				ev.Body = make([]byte, 32<<10) // some logs and tables are written, too
				before := s.syncs.Load()
				if err := q.Append(t.Context(), ev, toAudit); err != nil {
					t.Error(err)
					return
				}
				if took := s.syncs.Load() - before; took > longest.Load() {
					longest.Store(took)
				}
			}
		})
	}
	wg.Wait()
	// Its turn comes with the second sync at the latest; new logs and tables cost some
	// more. Counted in syncs, since a busy machine makes more of their time.
	if got := longest.Load(); got > 40 {
		t.Errorf("an append took %d syncs", got)
	}
	if have := allEvents(t, q, "audit"); len(have) != callers*each {
		t.Errorf("%d of %d are there", len(have), callers*each)
	}
	t.Logf("the longest append took %d syncs", longest.Load())
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// What hangs besides writes is noticed, too: to ask for the free space, to read, and
// to close. Nothing waits longer than StallTimeout.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	const stall = time.Second
	for name, c := range map[string]struct {
		kind errorfs.OpKind
		part string
		use  func(t *testing.T, q *Embedded) error
	}{
		"free space": {errorfs.OpGetDiskUsage, "", func(t *testing.T, q *Embedded) error {
			for {
				if err := q.Append(t.Context(), benchEvent(2), toAudit); err != nil {
					return err
				}
			}
		}},
		"sync at the close": {errorfs.OpFileSyncData, ".log", func(_ *testing.T, q *Embedded) error { return q.Close() }},
		"the sync of a directory": {errorfs.OpFileSync, "q", func(t *testing.T, q *Embedded) error {
			for {
				ev := benchEvent(3)
				ev.Body = make([]byte, 100<<10)
				if err := q.Append(t.Context(), ev, toAudit); err != nil {
					return err
				}
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &faults{kinds: map[errorfs.OpKind]bool{c.kind: true}, part: c.part, hang: make(chan struct{})}
			q, err := Open(t.Context(), Options{Dir: "/q", fs: errorfs.Wrap(vfs.NewMem(), f), StallTimeout: stall, ReserveBytes: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer close(f.hang)
			if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
				t.Fatal(err)
			}
			f.on.Store(true)
			used := make(chan error, 1)
			go func() { used <- c.use(t, q) }()
			select {
			case err := <-used:
				if !errors.Is(err, ErrFailed) {
					t.Errorf("%v, want ErrFailed", err)
				}
				t.Log(err)
			case <-time.After(30 * stall):
				t.Fatal("it hangs")
			}
		})
	}
}

// A reserve larger than the whole disk is refused, and logs fit into a small one.
func TestReserveAndSizes(t *testing.T) {
	t.Parallel()
	mem := vfs.NewMem()
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 64 << 20, TotalBytes: 64 << 20})
	_, err := Open(t.Context(), Options{Dir: "/q", fs: mem})
	if err == nil || !strings.Contains(err.Error(), "queue.reserve_bytes") {
		t.Errorf("64 MB, and a reserve of 256: %v", err)
	}
	for reserve, want := range map[int64]int64{1: 1 << 20, 16 << 20: 2 << 20, 256 << 20: 32 << 20, 1 << 40: 32 << 20} {
		if got := memTableSize(reserve); got != want {
			t.Errorf("reserve %d: memtables of %d, want %d", reserve, got, want)
		}
	}
}

// What comes from a disk may be anything.
func FuzzStoreFiles(f *testing.F) {
	f.Add([]byte{0x01, 0x02, 0x03, 0, 4, 0, 5, 7, 0, 0, 0, 'a', 'b', 'c', 'd'})
	f.Add(append([]byte{12, 0, 0, 0, 1, 6, 0, 2, 0, 0, 0}, make([]byte, 64)...))
	f.Add([]byte{1, 3, 'a', 'b', 'c', 2, 9, 103, 0, 12, 1, 1, 'k', 1, 'l', 2, 3, 6, 2, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, log := range []uint32{0, 7} {
			r := newChunkReader(strings.NewReader(string(b)), log)
			for last := int64(-1); ; {
				if _, ok := r.next(); !ok && !r.resync() {
					break
				}
				if r.offset <= last {
					t.Fatalf("it stands still at %d", last)
				}
				last = r.offset
			}
		}
		_ = (&liveFiles{tables: map[uint64]bool{}}).apply(b)
		if looksLikeData(b) {
			_, _ = decodeBlock(b)
		}
		for len(b) >= syncedSlot {
			_, _ = decodeSynced(b)
			b = b[syncedSlot:]
		}
	})
}
