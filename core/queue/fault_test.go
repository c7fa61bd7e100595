package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/callbackd/callbackd/core/event"
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"google.golang.org/protobuf/encoding/protowire"
)

var toAudit = []event.Route{{Pipeline: "p", Sink: "audit"}}

// faults makes operations of a file system fail from a moment on.
type faults struct {
	on    atomic.Bool
	kinds map[errorfs.OpKind]bool
	part  string // of the path
	hang  chan struct{}
}

func (f *faults) String() string { return "faults" }

func (f *faults) MaybeError(op errorfs.Op) error {
	if !f.on.Load() || !f.kinds[op.Kind] || !strings.Contains(op.Path, f.part) {
		return nil
	}
	if f.hang != nil {
		<-f.hang
		return nil
	}
	return errorfs.ErrInjected
}

// A failing disk turns the queue to failed: nothing is answered with success
// from then on, nothing hangs, and the process lives. Pebble is left as it is in
// these tests, so its goroutines stay.
func TestWriteErrors(t *testing.T) {
	kinds := func(ks ...errorfs.OpKind) map[errorfs.OpKind]bool {
		m := make(map[errorfs.OpKind]bool)
		for _, k := range ks {
			m[k] = true
		}
		return m
	}
	for name, f := range map[string]*faults{
		"log write":         {kinds: kinds(errorfs.OpFileWrite), part: ".log"},
		"log sync":          {kinds: kinds(errorfs.OpFileSync, errorfs.OpFileSyncData), part: ".log"},
		"log create":        {kinds: kinds(errorfs.OpCreate, errorfs.OpReuseForWrite), part: ".log"},
		"manifest write":    {kinds: kinds(errorfs.OpFileWrite), part: "MANIFEST"},
		"manifest sync":     {kinds: kinds(errorfs.OpFileSync, errorfs.OpFileSyncData), part: "MANIFEST"},
		"everything":        {kinds: kinds(errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpCreate)},
		"a disk that hangs": {kinds: kinds(errorfs.OpFileSync, errorfs.OpFileSyncData), part: ".log", hang: make(chan struct{})},
	} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			q, err := Open(t.Context(), Options{Dir: "/q", fs: errorfs.Wrap(mem, f), StallTimeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if f.hang != nil {
				t.Cleanup(func() { close(f.hang) })
			}
			taker := make(chan error, 1)
			go func() {
				_, err := q.Take(context.Background(), "other", Want{MaxEvents: 1, Lease: time.Minute})
				taker <- err
			}()
			var answered sync.Map
			var wg sync.WaitGroup
			for a := range 8 {
				wg.Go(func() {
					for i := 0; ; i++ {
						ev := benchEvent(uint64(a*1_000_000 + i + 1))
						ev.Body = make([]byte, 32<<10) // the first memtables, and so the logs, are small
						err := q.Append(context.Background(), ev, toAudit)
						if err != nil {
							if !errors.Is(err, ErrFailed) {
								t.Errorf("append: %v, want ErrFailed", err)
							}
							return
						}
						answered.Store(ev.ID, true)
						if i == 5 && f.on.CompareAndSwap(false, true) && f.part == "MANIFEST" {
							go func() { _, _ = q.store.AsyncFlush() }()
						}
					}
				})
			}
			wg.Wait()
			<-q.Failed()
			if !errors.Is(q.Err(), ErrFailed) {
				t.Errorf("Err: %v", q.Err())
			}
			t.Log(q.Err())
			if err := <-taker; !errors.Is(err, ErrFailed) {
				t.Errorf("take: %v", err)
			}
			for _, err := range []error{
				q.Append(t.Context(), benchEvent(1), toAudit), q.Settle(t.Context(), nil), q.Extend(t.Context(), nil, time.Second),
				q.DeadLetters(t.Context(), Filter{}, func(DeadLetter) bool { return true }), q.Close(),
			} {
				if !errors.Is(err, ErrFailed) {
					t.Errorf("after the failure: %v", err)
				}
			}
			q.Stats()

			// What was answered is there after a power cut.
			again, err := Open(t.Context(), Options{Dir: "/q", fs: mem.CrashClone(vfs.CrashCloneCfg{})})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = again.Close() }()
			have := allEvents(t, again, "audit")
			answered.Range(func(id, _ any) bool {
				if !have[fmt.Sprint(id)] {
					t.Errorf("event %v was answered with success and is lost", id)
				}
				return true
			})
		})
	}
}

// allEvents takes all that is pending for a sink.
func allEvents(t testing.TB, q *Embedded, sink string) map[string]bool {
	t.Helper()
	have := make(map[string]bool)
	for {
		st := q.Stats().Sinks[sink]
		if st.Pending == 0 {
			return have
		}
		ls, err := q.Take(context.Background(), sink, Want{MaxEvents: 1000, MaxBytes: 16 << 20, Lease: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range ls {
			have[l.Event.ID.String()] = true
		}
	}
}

func TestFullByBytes(t *testing.T) {
	q := openBench(t, Options{MaxBytes: 5000})
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		err = q.Append(t.Context(), benchEvent(uint64(n+1)), toAudit)
	}
	st := q.Stats()
	if !errors.Is(err, ErrFull) || n < 3 || st.Bytes > st.LimitBytes {
		t.Fatalf("after %d: %v, %+v", n, err, st)
	}
	ls, err := q.Take(t.Context(), "audit", Want{MaxEvents: 1, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Settle(t.Context(), []Settlement{{Lease: ls[0].Lease, Delivered: true}}); err != nil {
		t.Fatal(err)
	}
	if err := q.Append(t.Context(), benchEvent(200), toAudit); err != nil {
		t.Fatalf("there is room again: %v", err)
	}
}

func TestFullByReserve(t *testing.T) {
	mem := vfs.NewMem()
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 2 << 30})
	q := openBench(t, Options{Dir: "/q", ReserveBytes: 100 << 20, fs: mem})
	if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
		t.Fatal(err)
	}
	until := func(want error) {
		t.Helper()
		for range 100 {
			if err := q.Append(t.Context(), benchEvent(2), toAudit); errors.Is(err, want) {
				return
			}
			time.Sleep(diskEvery / 10)
		}
		t.Fatalf("never %v", want)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 100<<20 - 1, TotalBytes: 2 << 30})
	until(ErrFull)
	// What is there can be taken and settled.
	ls, err := q.Take(t.Context(), "audit", Want{MaxEvents: 1, Lease: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Settle(t.Context(), []Settlement{{Lease: ls[0].Lease, Dead: &event.Death{Reason: event.ReasonRejected}}}); err != nil {
		t.Fatal(err)
	}
	mem.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: 1 << 30, TotalBytes: 2 << 30})
	until(nil)
}

// A queue whose directory was removed answers nothing with success any more: what
// it would write then is never found again.
func TestRemovedDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if err = q.Append(t.Context(), benchEvent(2), toAudit); err != nil {
			break
		}
		time.Sleep(diskEvery / 10)
	}
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("Append: %v, want ErrFailed because the directory is gone", err)
	}
}

// A store that cannot be opened because the disk is full says so and does not try
// for ever. What is in it is there when the disk has room again.
func TestOpenOnAFullDisk(t *testing.T) {
	mem := vfs.NewCrashableMem()
	q, err := Open(t.Context(), Options{Dir: "/q", fs: mem})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	for i := range uint64(50) {
		if err := q.Append(t.Context(), benchEvent(i), toAudit); err != nil {
			t.Fatal(err)
		}
	}
	crashed := mem.CrashClone(vfs.CrashCloneCfg{})
	full := &faults{kinds: map[errorfs.OpKind]bool{errorfs.OpCreate: true, errorfs.OpFileWrite: true}, part: ".sst"}
	full.on.Store(true)
	opened := make(chan error, 1)
	go func() {
		_, err := Open(context.WithoutCancel(t.Context()), Options{Dir: "/q", fs: errorfs.Wrap(crashed.CrashClone(vfs.CrashCloneCfg{}), full)})
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("Open: %v, want ErrFailed and what to do", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Open does not return")
	}
	full.on.Store(false) // lets go of the one that failed
	again, err := Open(t.Context(), Options{Dir: "/q", fs: crashed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = again.Close() })
	if got := again.Stats().Sinks["audit"].Pending; got != 50 {
		t.Errorf("%d deliveries are there, want 50", got)
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	openBench(t, Options{Dir: dir})
	_, err := Open(t.Context(), Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "in use by another process") {
		t.Fatal(err)
	}
}

func TestNewDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "queue")
	openBench(t, Options{Dir: dir})
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: filepath.Join(file, "queue")}); err == nil {
		t.Fatal("a queue below a file")
	}
}

// damageCases change a closed store that holds an event.
func TestDamagedStore(t *testing.T) {
	each := func(pattern string, f func(path string) error) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			paths, _ := filepath.Glob(filepath.Join(dir, pattern))
			if len(paths) == 0 {
				t.Fatalf("no %s", pattern)
			}
			for _, p := range paths {
				if err := f(p); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	spoil := func(path string) error {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := len(b) / 3; i < len(b)/3+40 && i < len(b); i++ {
			b[i] ^= 0x5a
		}
		return os.WriteFile(path, b, 0o600)
	}
	for name, damage := range map[string]func(*testing.T, string){
		"manifest marker lost": each("marker.manifest.*", os.Remove),
		"manifest lost":        each("MANIFEST-*", os.Remove),
		"manifest spoiled":     each("MANIFEST-*", spoil),
		"table lost":           each("*.sst", os.Remove),
		"all but tables lost": func(t *testing.T, dir string) {
			each("MANIFEST-*", os.Remove)(t, dir)
			each("marker.*", os.Remove)(t, dir)
			each("*.log", os.Remove)(t, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := openBench(t, Options{Dir: dir})
			if err := q.Append(t.Context(), benchEvent(1), toAudit); err != nil {
				t.Fatal(err)
			}
			if err := q.store.Flush(); err != nil {
				t.Fatal(err)
			}
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			damage(t, dir)
			before, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
			_, err := Open(t.Context(), Options{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "move it away") {
				t.Fatalf("open: %v", err)
			}
			t.Log(err)
			after, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
			if len(after) != len(before) {
				t.Fatalf("tables before: %v, after: %v", before, after)
			}
		})
	}
}

// A record that cannot be read while the queue runs fails it, and says so.
func TestDamagedTable(t *testing.T) {
	dir := t.TempDir()
	q := openBench(t, Options{Dir: dir})
	for i := range 200 {
		if err := q.Append(t.Context(), benchEvent(uint64(i+1)), toAudit); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.store.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	paths, _ := filepath.Glob(filepath.Join(dir, "*.sst"))
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		for i := 100; i < min(50_000, len(b)/2); i += 500 {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	q, err := Open(t.Context(), Options{Dir: dir})
	if err == nil {
		_, err = q.Take(t.Context(), "audit", Want{MaxEvents: 1000, MaxBytes: 1 << 30, Lease: time.Minute})
		if !errors.Is(err, ErrFailed) {
			t.Errorf("take: %v, want ErrFailed", err)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("%v, want it to say that the store is damaged", err)
	}
	t.Log(err)
}

func TestFormatVersion(t *testing.T) {
	write := func(t *testing.T, dir string, key, value []byte) {
		db, err := pebble.Open(dir, &pebble.Options{Logger: storeLog{log: slog.New(slog.DiscardHandler), health: newHealth()}})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Set(key, value, pebble.Sync); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		key, value []byte
		want       string
	}{
		"newer":           {keyFormat(), protowire.AppendVarint([]byte{1 << 3}, storeFormat+1), "newer callbackd"},
		"malformed":       {keyFormat(), []byte{1 << 3}, "damaged"},
		"another program": {[]byte("k"), []byte("v"), "another program"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, c.key, c.value)
			_, err := Open(t.Context(), Options{Dir: dir})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
			// It let go of the directory.
			write(t, dir, c.key, c.value)
		})
	}
}
