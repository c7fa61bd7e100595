package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/encoding/protowire"
)

// Measures of the store in memory and on disk.
const (
	cacheSize = 16 << 20
	// memTableCount is how many memtables exist at most, with a log file of the
	// same size each; see memTableSize.
	memTableCount = 4
	// eventsPerTable is how many sequences of events a table spans at most: ten million
	// events are about 600 tables, of 10 MB where bodies have a few hundred bytes.
	eventsPerTable = 1 << 14
	// damagePause is how long Pebble waits when it has found damage once more: it looks
	// for the statistics of a damaged table again and again, on a processor of its own,
	// until the store is closed (v2.1.7).
	damagePause = 20 * time.Millisecond
)

// store is an opened Pebble with the lock on its directory.
type store struct {
	*pebble.DB
	lock *pebble.Lock
	fs   vfs.FS
	dir  string
	// armed: see faultFS.
	armed    atomic.Bool
	shortage *shortage
	synced   *syncedLengths
}

// health tells whether the store has failed, and how. Its channel is closed once.
type health struct {
	once   sync.Once
	failed chan struct{}
	err    error // valid after failed is closed
}

func newHealth() *health { return &health{failed: make(chan struct{})} }

func (h *health) fail(cause error) {
	h.once.Do(func() {
		h.err = fmt.Errorf("%w: %w", ErrFailed, cause)
		close(h.failed)
	})
}

// error returns nil while the store is in order.
func (h *health) error() error {
	select {
	case <-h.failed:
		return h.err
	default:
		return nil
	}
}

// guard runs f, which uses Pebble: a panic becomes a failure.
func (h *health) guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			h.fail(fmt.Errorf("store panicked: %v", r))
			err = h.error()
		}
	}()
	return f()
}

// storeLog is Pebble's way to talk: everything goes to debug lines, and what
// Pebble holds to be fatal turns the queue to failed.
type storeLog struct {
	log    *slog.Logger
	health *health
	errors *rate.Sometimes // Pebble repeats itself as fast as it tries again
}

func (l storeLog) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("store", "text", fmt.Sprintf(format, args...))
	}
}

func (l storeLog) Errorf(format string, args ...any) {
	l.errors.Do(func() { l.log.Warn("store error", "text", fmt.Sprintf(format, args...)) })
}

// Fatalf never returns: Pebble counts on that, and would go on with a state that
// it holds to be broken, for example delete a log that it could not replace. It
// does not exit either, which is the daemon's to do.
func (l storeLog) Fatalf(format string, args ...any) {
	l.health.fail(fmt.Errorf(format, args...))
	select {}
}

// storeOptions are Pebble's. open tells whether the store has been opened.
func storeOptions(fs vfs.FS, log *slog.Logger, h *health, open func() bool) *pebble.Options {
	logger := storeLog{log: log, health: h, errors: &rate.Sometimes{First: 5, Interval: 10 * time.Second}}
	events := pebble.MakeLoggingEventListener(logger)
	background := events.BackgroundError
	events.BackgroundError = func(err error) {
		background(err)
		if !open() {
			// Pebble would try again for ever, and its Open not return.
			h.fail(fmt.Errorf("the store cannot be opened: %w; what is in it is kept: free some space or repair the disk, and start again", err))
		}
	}
	events.DataCorruption = func(info pebble.DataCorruptionInfo) {
		if h.error() != nil {
			time.Sleep(damagePause)
		}
		h.fail(damaged(fmt.Errorf("%s: %w", info.Path, info.Details)))
		holdCompaction()
	}
	o := &pebble.Options{
		FS:                          fs,
		Logger:                      logger,
		EventListener:               &events,
		FormatMajorVersion:          pebble.FormatWALSyncChunks,
		CacheSize:                   cacheSize,
		MemTableStopWritesThreshold: memTableCount,
		MaxOpenFiles:                256,
		L0CompactionThreshold:       4,
		// A queue is written and deleted front to back: tables at level 0 hardly
		// overlap, and stopping writes would stop accepting callbacks.
		L0StopWritesThreshold: 1000,
		// Beyond so many tables they are moved to lower levels.
		L0CompactionFileThreshold:  100,
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	o.Experimental.SpanPolicyFunc = tableEnd
	// It would rewrite tables that could be moved from level to level as they are.
	o.Experimental.MultiLevelCompactionHeuristic = pebble.NoMultiLevel{}
	for i := range o.Levels {
		o.Levels[i].BlockSize = 32 << 10
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	// What most events need is a short life and two free cores, not small files.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings { return pebble.DBCompressionNone })
	return o
}

// tableEnd says where a table that begins with a key has to end: events and fresh
// deliveries have tables of their own, and events so many to a table. Keys of these are
// written once and in order, so such tables do not overlap, and a compaction moves them
// where it would rewrite them: with a backlog of millions, that is most of what there is
// to compact. As a table is of a bounded span of sequences, what is deleted at the front
// while more is appended at the back does not reach over the backlog in between.
func tableEnd(start []byte) (policy pebble.SpanPolicy, end []byte, err error) {
	if len(start) == eventKeyLen && start[0] == spaceEvent {
		if next := binary.BigEndian.Uint64(start[1:])/eventsPerTable + 1; next <= math.MaxUint64/eventsPerTable {
			return policy, appendEventKey(nil, next*eventsPerTable), nil
		}
	}
	for _, space := range []byte{spaceEvent, spaceEvent + 1, spaceFresh, spaceFresh + 1} {
		if len(start) == 0 || start[0] < space {
			return policy, []byte{space}, nil
		}
	}
	return policy, nil, nil
}

// openStore opens or creates the store in dir.
func openStore(ctx context.Context, o Options, h *health) (*store, error) {
	if err := makeDir(o.fs, o.Dir); err != nil {
		return nil, fmt.Errorf("queue %s: %w", o.Dir, err)
	}
	if err := checkReserve(o); err != nil {
		return nil, err
	}
	lock, err := pebble.LockDirectory(o.Dir, o.fs)
	if err != nil {
		if isInUse(err) {
			return nil, fmt.Errorf("queue %s is in use by another process: %w; stop the other callbackd or give this one a queue.dir of its own", o.Dir, err)
		}
		return nil, fmt.Errorf("queue %s: lock: %w", o.Dir, err)
	}
	s := &store{lock: lock, fs: o.fs, dir: o.Dir, shortage: newShortage(o.Logger.With("dir", o.Dir))}
	if err := s.open(ctx, o, h); err != nil {
		if h.error() == nil { // else Pebble is in an unknown state and keeps the lock
			if s.synced != nil {
				_ = s.synced.close()
			}
			_ = lock.Close()
		}
		return nil, err
	}
	return s, nil
}

func (s *store) open(ctx context.Context, o Options, h *health) error {
	if err := s.checkFiles(); err != nil {
		return err
	}
	var files []syncedFile
	var err error
	if s.synced, files, err = openSynced(s.fs, s.dir); err != nil {
		return s.openError(err)
	}
	if err := checkSynced(s.fs, s.dir, files); err != nil {
		return fmt.Errorf("queue %s: %w", s.dir, err)
	}
	var isOpen atomic.Bool
	po := storeOptions(faultFS{
		FS: syncedFS{FS: o.fs, lengths: s.synced}, health: h, shortage: s.shortage, armed: &s.armed,
		reserve: o.ReserveBytes,
	}, o.Logger, h, isOpen.Load)
	fitSizes(po, o.ReserveBytes)
	po.Lock = s.lock
	type result struct {
		db  *pebble.DB
		err error
	}
	opened := make(chan result, 1)
	go func() { // of its own, because Fatalf does not return
		var r result
		r.err = h.guard(func() (err error) {
			r.db, err = pebble.Open(s.dir, po)
			return err
		})
		opened <- r
	}()
	var r result
	select {
	case r = <-opened:
	case <-h.failed:
		return fmt.Errorf("queue %s: %w", s.dir, h.error())
	case <-ctx.Done():
		h.fail(fmt.Errorf("stopped while the store was being opened: %w", context.Cause(ctx)))
		return fmt.Errorf("queue %s: %w", s.dir, ctx.Err())
	}
	isOpen.Store(true)
	if r.err != nil {
		return s.openError(r.err)
	}
	s.DB = r.db
	err = s.checkFormat()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = r.db.Close()
		return err
	}
	s.armed.Store(true)
	return nil
}

// checkFiles refuses a directory that has lost its manifest: Pebble would take
// it for a new one and delete what is left.
func (s *store) checkFiles() error {
	desc, err := pebble.Peek(s.dir, s.fs)
	if err != nil {
		return s.openError(err)
	}
	if desc.Exists {
		return nil
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return fmt.Errorf("queue %s: %w", s.dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".log") {
			return s.damaged(fmt.Errorf("it has data (%s) but no manifest", name))
		}
	}
	return nil
}

// checkFormat refuses what this program cannot read, and marks a new store.
func (s *store) checkFormat() error {
	v, closer, err := s.Get(keyFormat())
	switch {
	case err == nil:
		defer func() { _ = closer.Close() }()
		format, err := decodeNumber(v)
		if err != nil {
			return s.damaged(fmt.Errorf("format version: %w", err))
		}
		if format > storeFormat {
			return s.newer(fmt.Errorf("its format is %d, this program knows %d", format, storeFormat))
		}
		if format < 1 {
			return s.damaged(errors.New("it has no format version"))
		}
		return nil
	case !errors.Is(err, pebble.ErrNotFound):
		return s.openError(err)
	}
	it, err := s.NewIter(nil)
	if err != nil {
		return s.openError(err)
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return s.openError(err)
	}
	if !empty {
		return fmt.Errorf("queue %s: the directory holds a store of another program; choose another queue.dir", s.dir)
	}
	format := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), storeFormat)
	if err := s.Set(keyFormat(), format, pebble.Sync); err != nil {
		return fmt.Errorf("queue %s: %w", s.dir, err)
	}
	return nil
}

// openError says what to do about an error of opening.
func (s *store) openError(err error) error {
	var errno syscall.Errno
	switch {
	case strings.Contains(err.Error(), "format major version"):
		return s.newer(err)
	case isNoRoom(err):
		return fmt.Errorf("queue %s: %w: the store cannot be opened: %w; what is in it is kept: free some space, and start again", s.dir, ErrFailed, err)
	case pebble.IsCorruptionError(err), errors.Is(err, fs.ErrNotExist), !errors.As(err, &errno):
		return s.damaged(err)
	}
	return fmt.Errorf("queue %s: %w", s.dir, err)
}

func (s *store) newer(err error) error {
	return fmt.Errorf("queue %s was written by a newer callbackd: %w; start that version, or choose another queue.dir", s.dir, err)
}

func (s *store) damaged(err error) error { return fmt.Errorf("queue %s: %w", s.dir, damaged(err)) }

func damaged(err error) error {
	return fmt.Errorf("the store is damaged: %w; nothing was removed: make a new queue of what can be read with callbackd queue salvage DIR --to NEWDIR, "+
		"restore the directory from a backup, or move it away to begin with an empty queue", err)
}

// close ends Pebble in order. It does not wait for one that fails at that.
func (s *store) close(h *health) error {
	s.armed.Store(false)
	closed := make(chan error, 1)
	go func() { closed <- h.guard(s.Close) }()
	select {
	case err := <-closed:
		if h.error() != nil {
			return h.error()
		}
		return errors.Join(err, s.synced.close(), s.lock.Close())
	case <-h.failed:
		return h.error()
	}
}

// makeDir creates dir, and syncs the parents of what it created: a directory
// that a power cut takes away takes the queue with it.
func makeDir(fsys vfs.FS, dir string) error {
	var created []string
	for d := dir; ; d = fsys.PathDir(d) {
		info, err := fsys.Stat(d)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a directory", d)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		created = append(created, d)
		if fsys.PathDir(d) == d {
			break
		}
	}
	if len(created) == 0 {
		return nil
	}
	if len(created) > 1 {
		if err := fsys.MkdirAll(created[1], 0o750); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, d := range created {
		if err := syncDir(fsys, fsys.PathDir(d)); err != nil {
			return err
		}
	}
	return nil
}

func syncDir(fsys vfs.FS, dir string) error {
	f, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
