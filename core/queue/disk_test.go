package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

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
